"""If this breaks, an encoder is evaluated on images that it was trained on, and looks too good."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import folder_source, overlap, tfrecord_source
from simclr_tf.data.dataset import data
from simclr_tf.data.overlap import shared_images
from simclr_tf.data.places import Place, shared_places
from simclr_tf.data.source import ArraySource
from simclr_tf.errors import RequestError
from tests.data.conftest import encode, picture


@pytest.fixture
def splits(tmp_path):
    """Folders of two classes: train with 8 images, test with 4 others; returns a function."""
    for split, first, count in (("train", 0, 8), ("test", 8, 4)):
        for i in range(first, first + count):
            path = tmp_path / "data" / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(picture(i), "PNG"))
    return tmp_path / "data"


def evaluation(folder, **settings):
    return data(source=f"folder:{folder}", data_dir=None, **settings).evaluation()


def test_splits_without_a_common_image_are_evaluated(splits):
    assert evaluation(splits).num_examples == 4


@pytest.mark.parametrize("put", [os.symlink, os.link, shutil.copy])
def test_a_file_of_both_splits_is_found_however_it_got_there(put, splits):
    put(splits / "train" / "a" / "4.png", splits / "test" / "b" / "another.png")
    with pytest.raises(RequestError, match=r"not trained on.*1 (images|copies).*another\.png"):
        evaluation(splits)


def test_a_split_that_is_a_link_to_the_other_is_found(splits):
    (splits / "val").symlink_to("train")
    source, linked = (folder_source.open_folder(str(splits), split) for split in ("train", "val"))
    assert linked.num_examples == 8
    assert shared_images(linked, source).startswith("8 images, such as")


def test_files_of_another_length_are_not_read_for_the_comparison(splits, monkeypatch):
    def sizes_of(split):
        return {p.stat().st_size for p in (splits / split).rglob("*.png")}

    lengthened = splits / "test" / "a" / "8.png"
    lengthened.write_bytes(lengthened.read_bytes() + bytes(5000))
    assert not sizes_of("train") >= sizes_of("test")
    monkeypatch.setattr(overlap, "_MOST_IMAGES", 11)
    shutil.copy(splits / "train" / "b" / "1.png", splits / "test" / "b" / "copy.png")
    os.remove(splits / "test" / "a" / "10.png")
    train, test = (folder_source.open_folder(str(splits), split) for split in ("train", "test"))
    assert "1 copies" in shared_images(test, train)
    monkeypatch.setattr(overlap, "_MOST_IMAGES", 1)
    assert shared_images(test, train) is None


def test_record_files_that_intersect(record_files, tmp_path):
    pattern = record_files(3, 4)
    source = tfrecord_source.open_tfrecord(pattern)
    (second,) = (tfrecord_source.open_tfrecord(str(tmp_path / "part-001.tfrecord")),)
    assert shared_images(second, source).startswith("4 images, such as")
    first = tfrecord_source.open_tfrecord(str(tmp_path / "part-000.tfrecord"))
    assert shared_images(first, second) is None
    assert shared_images(source.select([0, 1, 4]), source.select([2, 3, 5])) is None
    assert shared_images(source.select([0, 1, 4]), source.select([4])).startswith("1 images")
    link = tmp_path / "other"
    link.symlink_to("part-000.tfrecord")
    linked = tfrecord_source.open_tfrecord(str(link))
    assert shared_images(linked, first).startswith("3 images")


def test_records_that_are_copied_or_repacked(record_files, tmp_path):
    record_files(3, 4)
    first = tfrecord_source.open_tfrecord(str(tmp_path / "part-000.tfrecord"))
    packed = str(tmp_path / "packed.gz")
    with tf.io.TFRecordWriter(packed, "GZIP") as writer:
        writer.write(b"no example")
        for record in list(tf.data.TFRecordDataset(str(tmp_path / "part-000.tfrecord")))[1:]:
            writer.write(record.numpy())
    # Opened as the first file is: its first record is damaged.
    copies = tfrecord_source.RecordSource(
        name="copies",
        num_examples=3,
        class_names=None,
        files=tfrecord_source.record_files([packed]),
        parse=first.parse,
    )
    assert shared_images(copies, first).startswith("2 copies, such as " + packed + ", record 1")


def array(images, name="array"):
    images = np.array(images, np.uint8)
    return ArraySource(name=name, num_examples=len(images), class_names=None, images=images)


def test_images_in_memory_are_compared_by_their_pixels(caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3))
    train, test = array(pixels[:200]), array(pixels[200:], "test")
    assert shared_images(test, train) is None
    assert "both are" in shared_images(test, array(pixels, "test"))
    test.images[7] = train.images[5]
    assert "1 copies, such as image 7 of test, which is image 5 of array" in shared_images(
        test, train
    )
    assert shared_images(test, train, copies=0.01) is None
    assert "1 copies" in caplog.text
    test.images[8] = train.images[5]
    assert shared_images(test, train, copies=0.01).startswith("2 copies")


def test_places_are_ranges_of_records(tmp_path):
    def shared(one, other):
        return shared_places([Place("f", *one)], [Place("f", *other)])

    assert shared((0, 80), (80, 100)) is None
    assert shared((0, 80), (50, 100)) == "30 images, such as f, record 50"
    assert shared((), ()) == "1 images, such as f"
    assert shared_places([Place("f", 0, 3)], [Place("g", 0, 3)]) is None


def test_a_validation_split_shares_no_image_with_either_of_the_others(splits, caplog):
    (splits / "val" / "a").mkdir(parents=True)
    (splits / "val" / "b").mkdir()
    for name in ("a", "b"):
        (splits / "val" / name / "20.png").write_bytes(encode(picture(20), "PNG"))

    def opened():
        recipe = data(source=f"folder:{splits}", data_dir=None)
        return recipe.held_out("val", "lbfgs.validation_split").num_examples

    assert opened() == 2
    for put, split, words in (
        (shutil.copy, "train", "not trained on"),
        (os.symlink, "test", "not tested on"),
    ):
        twin = splits / "val" / "a" / "twin.png"
        put(next(pathlib.Path(splits / split).rglob("*.png")), twin)
        with pytest.raises(RequestError, match=rf"{words}.*set lbfgs\.validation_split"):
            opened()
        twin.unlink()
    shutil.copy(splits / "test" / "a" / "8.png", splits / "val" / "a")
    assert opened() == 3 and "1 copies, such as" in caplog.text
