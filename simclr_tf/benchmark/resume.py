"""The cost of resuming in the middle of an epoch of record files: time and bytes to a batch."""

from __future__ import annotations

import os
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence

import tensorflow as tf

from simclr_tf.data import record_stream
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RecordFile
from simclr_tf.distribute.strategy import HostSlice

SHARES = (0.0, 0.5, 0.99)
_BATCH = 16
_FILES = 128
_RECORD_BYTES = 110_000  # as in ImageNet
# ImageNet as TFDS packs it, and the shuffle buffer of its recipe.
_IMAGENET_FILES, _IMAGENET_RECORDS, _IMAGENET_BUFFER = 1024, 1_281_167, 16_384


def measure(num_records: int, rounds: int) -> str:
    """Times the first batch after part of an epoch, compared with reading all records before it.

    Args:
      num_records: number of records of 110 KB each, in 128 temporary files.
      rounds: how often each is timed, in turns.

    Returns:
      The table, and one of the bytes read of ImageNet, which follows from its counts alone.
    """
    buffer = max(1, num_records * _IMAGENET_BUFFER // _IMAGENET_RECORDS)
    with tempfile.TemporaryDirectory() as folder, tf.device("/CPU:0"):
        counts = _split(num_records, _FILES)
        source = _source(counts, folder)
        for file in source.files:
            with tf.io.TFRecordWriter(file.path) as writer:
                for _ in range(file.count):
                    writer.write(os.urandom(_RECORD_BYTES))
        lines = [
            f"{num_records} records of {_RECORD_BYTES} bytes in {_FILES} files, shuffle buffer "
            f"{buffer}, batches of {_BATCH}, {rounds} rounds",
            "",
            *_timings(source, buffer, rounds),
        ]
    return "\n".join([*lines, "", *_imagenet()])


def _timings(source: RecordSource, buffer: int, rounds: int) -> list[str]:
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=_BATCH)
    every = record_stream.HostEpochs.of(source.files, 0, buffer, host, source.name)
    epoch = tf.data.Dataset.range(1)
    lines = [
        "| given out | s, reading all | s | ratio | MiB, reading all | MiB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for share in SHARES:
        done = int(share * source.num_examples)
        before = epoch.flat_map(every.whole).skip(done).batch(_BATCH)
        after = record_stream.epochs(
            source.files, 0, buffer, host, done, _BATCH, after=0, name=source.name
        )
        rows = [
            [_first_batch(dataset, source) for dataset in (before, after)]
            for _ in range(rounds + 1)
        ][1:]
        ratio = _range([a[0] / b[0] for a, b in rows], ".2f")
        seconds, mib = ([[row[i][k] for row in rows] for i in (0, 1)] for k in (0, 1))
        lines.append(
            f"| {share:.0%} | {_range(seconds[0], '.2f')} | {_range(seconds[1], '.2f')} | {ratio} "
            f"| {statistics.median(mib[0]):.0f} | {statistics.median(mib[1]):.0f} |"
        )
    return lines


def _first_batch(dataset: tf.data.Dataset, source: RecordSource) -> tuple[float, float]:
    """Measures seconds to the first batch from files not in memory, and MiB read meanwhile."""
    _forget(file.path for file in source.files)
    bytes_before, start = _bytes_read(), time.perf_counter()
    iterator = iter(dataset)
    next(iterator)
    return time.perf_counter() - start, (_bytes_read() - bytes_before) / 2**20


def _forget(paths: Iterable[str]) -> None:
    """Asks the system to drop its copies of the files in memory, which some systems cannot do."""
    if hasattr(os, "posix_fadvise"):
        for path in paths:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes_read() -> float:
    """Returns the bytes that this process has read so far, cached or not; NaN if unknown."""
    try:
        text = pathlib.Path("/proc/self/io").read_text()
    except OSError:
        return float("nan")
    return float(re.search(r"rchar: (\d+)", text)[1])


def _imagenet() -> list[str]:
    source = _source(_split(_IMAGENET_RECORDS, _IMAGENET_FILES), "")
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=_BATCH)
    lines = [
        "| ImageNet, given out | still to come | read, of all records | s to find out |",
        "| ---: | ---: | ---: | ---: |",
    ]
    with tf.device("/CPU:0"):
        every = record_stream.HostEpochs.of(source.files, 0, _IMAGENET_BUFFER, host, source.name)
        for share in SHARES:
            done = int(share * source.num_examples)
            start = time.perf_counter()
            needed = int(tf.reduce_sum(every.needed(tf.constant(0, tf.int64), done)))
            lines.append(
                f"| {share:.0%} | {1 - share:.0%} | {needed / source.num_examples:.1%} "
                f"| {time.perf_counter() - start:.1f} |"
            )
    return lines


def _source(counts: Sequence[int], folder: str) -> RecordSource:
    return RecordSource(
        name="records",
        num_examples=sum(counts),
        class_names=None,
        files=[
            RecordFile(path=os.path.join(folder, f"{i:04d}.tfrecord"), skip=0, count=count)
            for i, count in enumerate(counts)
        ],
        parse=lambda record: (record, tf.constant(-1, tf.int64)),
    )


def _split(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


def _range(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
