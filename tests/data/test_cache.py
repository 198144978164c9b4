"""If this breaks, holding the data in memory changes what is learned from, or fills the memory."""

import numpy as np
import pytest

from simclr_tf import system_memory
from simclr_tf.augment.policy import augmentation
from simclr_tf.data import cache, folder_source, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import data
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from tests.support.views import pairs


def batches(source, random_crop=False) -> tuple[list[dict[str, np.ndarray]], int]:
    """Of a whole epoch and part of the next, from the second batch on; and how many were bad."""
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(), random_crop=random_crop), 12),
        seed=3,
        bad_images=BadImages(source, limit=0.5),
    )
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=4)
    found = list(pipeline.dataset(host, start_step=1).take(4).as_numpy_iterator())
    return found, len(pipeline.bad_images)


def same(found, expected):
    assert found[1] == expected[1]
    for a, b in zip(found[0], expected[0], strict=True):
        for name in b:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_held_files_give_the_same_batches_and_are_not_read_again(photos):
    source = folder_source.open_folder(str(photos), "train")
    expected = batches(source, random_crop=True)
    held = [cache.hold(source, kind) for kind in ("encoded", "decoded")]
    for path in source.paths:
        with open(path, "wb") as file:
            file.truncate()
    for copies in held:
        same(batches(copies, random_crop=True), expected)
        assert copies.name_of(3) == source.paths[3]


def test_held_records_give_the_same_batches_and_are_not_read_again(record_files):
    source = tfrecord_source.open_tfrecord(record_files(5, 4, 3))
    expected = batches(source)
    held = cache.hold(source, "encoded")
    for file in source.files:
        with open(file.path, "wb") as emptied:
            emptied.truncate()
    same(batches(held), expected)


def test_bad_images_are_replaced_and_noted_as_without(photos):
    """Also if there are older copies, from before the files were spoilt."""
    source = folder_source.open_folder(str(photos), "train")
    for kind in ("encoded", "decoded"):
        cache.hold(source, kind)
    for name in ("3.jpg", "alpha.png"):
        (photos / name).write_text("no picture at all")
    expected = batches(source)
    assert expected[1] == 2
    for kind in ("encoded", "decoded"):
        same(batches(cache.hold(source, kind)), expected)


def test_what_would_not_fit_is_refused_with_numbers(photos, monkeypatch):
    source = folder_source.open_folder(str(photos), "train")
    # Widths and heights of the fixture, times three; JPEGs of which are 31 + i by 57 - i.
    pixels = sum((31 + i) * (57 - i) for i in range(6)) + 4 * 40 * 30 + 9 * 5 + 40 * 30
    monkeypatch.setattr(system_memory, "available_bytes", lambda: int(3 * pixels / 0.8) - 2)
    with pytest.raises(RequestError, match=r"80%(.|\n)*Bind data.cache = 'encoded'"):
        cache.hold(source, "decoded")
    monkeypatch.setattr(system_memory, "available_bytes", lambda: int(3 * pixels / 0.8) + 2)
    assert cache.hold(source, "decoded").cache == "decoded"


def test_what_cannot_be_held_is_refused_and_what_is_in_memory_is_left(record_files):
    records = tfrecord_source.open_tfrecord(record_files(3))
    with pytest.raises(RequestError, match="read in order"):
        cache.hold(records, "decoded")
    with pytest.raises(RequestError, match="--tpu=pod"):
        data(cache="encoded", data_dir=None).held(records, "pod")
    assert data(data_dir=None).held(records, "pod") is records
    array = ArraySource(
        name="a", num_examples=1, class_names=None, labels=None, images=np.zeros((1, 8, 8, 3))
    )
    assert cache.hold(array, "decoded") is array
