"""If this breaks, a run that goes on amid an epoch sees other images, or reads what it skips."""

import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import record_stream
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RECORDS_PER_FILE, RecordFile
from simclr_tf.distribute.strategy import HostSlice

UNEVEN = (7, 1, 12, 3, 0, 5)


@pytest.fixture
def write(tmp_path):
    """Files of such counts, of which each record says which it is, and its source."""

    def source(counts, skip=0):
        files = []
        for number, count in enumerate(counts):
            path = str(tmp_path / f"{number:03d}.tfrecord")
            with tf.io.TFRecordWriter(path) as writer:
                for record in range(skip + count + 1):
                    writer.write(str(number * RECORDS_PER_FILE + record).encode())
            files.append(RecordFile(path=path, skip=skip, count=count))
        return RecordSource(
            name="records", num_examples=sum(counts), class_names=None, files=files, parse=None
        )

    return source


def host_of(index=0, num_hosts=1):
    return HostSlice(index=index, num_hosts=num_hosts, replicas=1, per_replica=1)


def stream(source, start, count, buffer, host=None, seed=3):
    """`count` rows (record, index, epoch) from `start` on."""
    with tf.device("/CPU:0"):
        dataset = record_stream.epochs(
            source.files, seed, buffer, host or host_of(), start, block=1, after=0, name=source.name
        )
    rows = dataset.take(count).as_numpy_iterator()
    return [(int(r["record"][0]), int(r["index"][0]), int(r["epoch"][0])) for r in rows]


@pytest.mark.parametrize(
    ("counts", "skip", "host", "buffer"),
    [
        (UNEVEN, 0, host_of(), 4),
        (UNEVEN, 2, host_of(1, 3), 1000),
        ((9, 4), 0, host_of(2, 5), 1),
        ((9,), 1, host_of(), 3),
        (tuple(range(1, 20)), 0, host_of(), 50),
    ],
    ids=["uneven", "of several hosts", "fewer files than hosts", "one file", "more than are open"],
)
def test_a_start_goes_on_in_the_order_of_an_uninterrupted_run(write, counts, skip, host, buffer):
    source = write(counts, skip)
    mine = counts[host.index :: host.num_hosts]
    if len(counts) < host.num_hosts:
        mine = [1] * len(range(sum(counts))[host.index :: host.num_hosts])
    total = sum(mine)
    starts = range(0, 2 * total, 1 + total // 20)
    whole = stream(source, 0, 2 * total, buffer, host)
    assert [len({r for r, _, e in whole if e == epoch}) for epoch in range(2)] == [total] * 2
    assert all(record == index for record, index, _ in whole)
    assert stream(source, total - 1, total, buffer, host) == whole[total - 1 : -1]

    def rest(start):
        return host_epochs.rest(start // total, start % total)

    with tf.device("/CPU:0"):
        host_epochs = record_stream.HostEpochs.of(source.files, 3, buffer, host, source.name)
        rests = tf.data.Dataset.range(0, 2 * total, starts.step).flat_map(rest).as_numpy_iterator()
    for start in starts:
        expected = whole[start : (start // total + 1) * total]
        found = [next(rests) for _ in expected]
        assert [(int(r["record"]), r["index"], r["epoch"]) for r in found] == expected, start


def test_files_that_are_given_out_are_not_needed(write):
    """They are deleted, and the epoch goes on to its end."""
    source = write([20] * 40)
    n = source.num_examples
    done = 3 * n // 4
    whole = stream(source, 0, n, 30)
    left = {index // RECORDS_PER_FILE for _, index, _ in whole[done:]}
    assert 0 < len(left) < 30
    for number, file in enumerate(source.files):
        if number not in left:
            os.remove(file.path)
    assert stream(source, done, n - done, 30) == whole[done:]


def test_a_file_is_read_no_further_than_to_its_last_needed_record(write):
    """Everything after it is destroyed."""
    source = write([50] * 3)
    n = source.num_examples
    whole = stream(source, 0, n, 20)
    needed = np.zeros(3, int)
    for _, index, _ in whole[-3:]:
        number, record = divmod(index, RECORDS_PER_FILE)
        needed[number] = max(needed[number], record + 1)
    for file, records_needed in zip(source.files, needed, strict=True):
        os.truncate(file.path, _size_of(file.path, records_needed))
    assert stream(source, n - 3, 3, 20) == whole[-3:]


def test_a_file_that_became_shorter_is_refused_amid_an_epoch_too(write):
    source = write([30, 30])
    for file in source.files:
        os.truncate(file.path, _size_of(file.path, 10))
    with pytest.raises(tf.errors.FailedPreconditionError, match="10"):
        stream(source, 5, 55, 8)


def _size_of(path, count):
    """Bytes of the first `count` records: each has 16 beside its own."""
    return sum(16 + len(r.numpy()) for r in tf.data.TFRecordDataset(path).take(count))
