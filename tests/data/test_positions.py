"""If this breaks, a method that remembers each image mixes up what it remembers."""

import dataclasses

import numpy as np
import pytest

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import folder_source, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.positions import positions_in
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RECORDS_PER_FILE, RecordFile
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from tests.support.views import pairs

# Of 17 records, whose labels are these; some follow each other in their file.
CHOSEN = [2, 5, 6, *range(8, 17)]


def batches(source, steps, host, start=0, by_position=True):
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=()), 8),
        seed=3,
        bad_images=BadImages(source, limit=0.5),
        shuffle_buffer=5,
        by_position=by_position,
    )
    return list(pipeline.dataset(host, start).take(steps).as_numpy_iterator())


def host(index=0, num_hosts=1, per_replica=3):
    return HostSlice(index=index, num_hosts=num_hosts, replicas=1, per_replica=per_replica)


def array_source() -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    return ArraySource(
        name="arrays", num_examples=12, class_names=None, images=images, labels=np.arange(12)
    )


@pytest.fixture(params=["array", "folder", "part of records"])
def source(request, photos, record_files):
    """Twelve images."""
    if request.param == "array":
        return array_source()
    if request.param == "folder":
        folder = folder_source.open_folder(str(photos), "train")
        return dataclasses.replace(folder, labels=np.arange(12))
    return tfrecord_source.open_tfrecord(record_files(5, 4, 8)).select(CHOSEN)


def label_at(source, position: int) -> int:
    """That of all other sources is the position."""
    return CHOSEN[position] if "of 17" in source.name else position


def test_a_position_is_of_the_same_image_in_every_epoch_and_after_a_restart(source):
    whole = batches(source, 12, host())
    for batch in whole:
        for label, position in zip(batch["labels"], batch["index"], strict=True):
            assert label == label_at(source, position)
    found = np.concatenate([batch["index"] for batch in whole])
    assert found.dtype == np.int32
    epochs = found.reshape(3, 12)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(12), (3, 1)))
    assert not np.array_equal(epochs[0], epochs[1])
    again = np.concatenate([batch["index"] for batch in batches(source, 7, host(), start=5)])
    np.testing.assert_array_equal(again, found[15:])


@pytest.mark.parametrize("files", [(5, 4, 3), (12,)])
def test_hosts_name_an_image_alike(record_files, files):
    """Each has files of its own, or, of a file alone, every second record."""
    source, seen = tfrecord_source.open_tfrecord(record_files(*files)), []
    for index in range(2):
        for batch in batches(source, 12, host(index, num_hosts=2, per_replica=1)):
            np.testing.assert_array_equal(batch["labels"], batch["index"])
            seen.append(int(batch["index"][0]))
    assert set(seen) == set(range(12))


def test_an_image_that_does_not_decode_shifts_no_other(record_files):
    bad = frozenset({0, 6})
    source = tfrecord_source.open_tfrecord(record_files(5, 4, 3, bad=bad))
    seen = set()
    for batch in batches(source, 12, host()):
        np.testing.assert_array_equal(batch["labels"], batch["index"])
        seen |= set(batch["index"].tolist())
    assert seen == set(range(12)) - bad


def test_nothing_else_of_a_batch_is_changed(record_files):
    source = tfrecord_source.open_tfrecord(record_files(5, 4, 3))
    numbers, positions = (
        batches(source, 2, host(), by_position=by_position) for by_position in (False, True)
    )
    for numbered, positioned in zip(numbers, positions, strict=True):
        assert numbered.keys() == positioned.keys()
        for name in numbered.keys() - {"index"}:
            np.testing.assert_array_equal(numbered[name], positioned[name])
        np.testing.assert_array_equal(source.indices()[positioned["index"]], numbered["index"])


def records(files: list[RecordFile], count: int) -> RecordSource:
    return RecordSource(name="huge", num_examples=count, class_names=None, files=files, parse=None)


def test_numbers_beyond_int32_have_a_position():
    """Those of the records of 2,048 files and more."""
    files = [RecordFile(path=str(i), skip=0, count=2) for i in range(3000)]
    [position] = positions_in(records(files, 6000))(np.array([2999 * RECORDS_PER_FILE + 1]))
    assert position == 5999


def test_a_source_whose_records_share_numbers_is_refused_by_name():
    files = [RecordFile(path=str(i), skip=0, count=RECORDS_PER_FILE + 1) for i in range(2)]
    with pytest.raises(RequestError, match=r"(?s)number for each.*huge.*2,097,154 images.*2\^20"):
        positions_in(records(files, 2 * RECORDS_PER_FILE + 2))
