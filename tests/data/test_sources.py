"""If this breaks, a source gives other images or labels than its owner has."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import folder_source, tfrecord_source
from simclr_tf.data.dataset import data
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.source import ArraySource
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return str(root)


def test_parent_folders_are_the_classes(tmp_path):
    path = tree(tmp_path, "cat/1.jpg", "dog/2.JPG", "dog/more/dog/3.png", "dog/x.txt", ".h/4.jpg")
    source = folder_source.open_folder(path, "train")
    assert source.class_names == ["cat", "dog"]
    assert list(source.labels) == [0, 1, 1]
    assert source.num_examples == 3


@pytest.mark.parametrize(
    "names", [["1.jpg", "2.jpg"], ["all/1.jpg"], ["a/1.jpg", "b/2.jpg", "3.jpg"]]
)
def test_otherwise_there_are_no_labels(tmp_path, names):
    source = folder_source.open_folder(tree(tmp_path, *names), "train")
    assert source.labels is None and source.num_classes is None


def test_files_are_the_same_wherever_they_lie(tmp_path, record_files):
    def identity(place, *names):
        return folder_source.open_folder(tree(tmp_path / place, *names), "train").identity()

    first = identity("a", "x/1.jpg", "y/2.jpg")
    assert first == identity("b/c", "x/1.jpg", "y/2.jpg")
    assert first not in (identity("d", "x/1.jpg", "y/3.jpg"), identity("e", "x/1.jpg"))
    assert identity("f", "1.jpg") == identity("g", "1.jpg")
    records = tfrecord_source.open_tfrecord(record_files(3, 2))
    assert records.identity().startswith("2 files, ")
    assert records.identity() != tfrecord_source.open_tfrecord(record_files(3, 3)).identity()


def test_a_folder_named_like_the_split_is_the_split(tmp_path):
    path = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg")
    assert folder_source.open_folder(path, "train").num_examples == 2
    assert folder_source.open_folder(path, "val").num_examples == 1


def test_records_are_counted_by_their_headers(record_files):
    pattern = record_files(3, 0, 4)
    source = tfrecord_source.open_tfrecord(pattern)
    assert [f.count for f in source.files] == [3, 0, 4]
    assert source.num_examples == sum(1 for _ in tf.data.TFRecordDataset(tf.io.gfile.glob(pattern)))
    assert source.num_classes == 7


def test_record_files_are_found_by_name_before_pattern(record_files, tmp_path):
    record_files(3, 4)
    folder = tmp_path / "set [1-9] {split}"
    folder.mkdir()
    for number in range(2):
        (tmp_path / f"part-00{number}.tfrecord").rename(folder / f"p[{number}].tfrecord")
    for pattern, count in (("p*", 7), ("p[[]1].tfrecord", 4), ("p[0].tfrecord", 3)):
        assert tfrecord_source.open_tfrecord(f"{folder}/{pattern}").num_examples == count
    assert tfrecord_source.open_tfrecord(f"{tmp_path}/s*/p*").num_examples == 7


def test_record_files_below_the_home_folder(record_files, tmp_path, monkeypatch):
    record_files(3)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("tfrecord:~/part*", "train", None).num_examples == 3


def test_records_without_labels(record_files):
    source = tfrecord_source.open_tfrecord(record_files(3, labelled=False))
    assert source.num_classes is None


def test_a_record_file_that_is_cut_short_is_named(record_files, tmp_path):
    pattern = record_files(3, 4)
    path = tmp_path / "part-001.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RequestError, match=r"part-001\.tfrecord is cut short after record 3"):
        tfrecord_source.open_tfrecord(pattern)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds:no_such_set", "must be prepared before training.*tools/prepare_dataset.py"),
        ("tfds:mnist", "must be prepared before training"),
        ("folder:/nowhere/at/all", "folder of images must exist"),
        ("folder:", r"data\.source must be"),
        ("tfrecord:/nowhere/*.tfrecord", "No TFRecord file matches"),
        ("imagenet", r"data\.source must be.*Received: 'imagenet'"),
    ],
)
def test_what_is_not_there_is_one_clear_error(spec, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        open_source(spec, "train", None if spec == "folder:" else str(tmp_path))


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(RequestError, match="No image found"):
        open_source("folder:", "train", str(tmp_path))


def test_cifar10_is_held_decoded_in_memory(datasets):
    source = open_source("tfds:cifar10", "test", str(datasets / "tfds"))
    assert isinstance(source, ArraySource)
    assert source.images.shape == (10000, 32, 32, 3) and source.images.dtype == np.uint8
    assert list(np.bincount(source.labels)) == [1000] * 10
    assert source.class_names[3] == "cat"


def test_a_split_that_is_not_there_names_those_that_are(datasets):
    with pytest.raises(RequestError, match=r"train, test\. Received: 'validation'"):
        open_source("tfds:cifar10", "validation", str(datasets / "tfds"))


def test_a_large_tfds_set_is_read_record_by_record(datasets, monkeypatch):
    """The same images and labels, whether decoded at once or as they come."""
    from simclr_tf.data import tfds_source
    from simclr_tf.data.bad_images import BadImages
    from simclr_tf.data.plain_images import plain_images

    in_memory = open_source("tfds:cifar10", "test[10:50]", str(datasets / "tfds"))
    monkeypatch.setattr(tfds_source, "_IN_MEMORY_BYTES", 0)
    streamed = open_source("tfds:cifar10", "test[10:50]", str(datasets / "tfds"))
    assert isinstance(streamed, RecordSource)
    assert len(streamed.indices()) == streamed.num_examples == 40
    batches = list(plain_images(streamed, 32, 25, BadImages(streamed)))
    images, labels, index = (np.concatenate(part) for part in zip(*batches, strict=True))
    np.testing.assert_array_equal(labels, in_memory.labels)
    np.testing.assert_array_equal(index, streamed.indices())
    np.testing.assert_allclose(images, in_memory.images / 255, atol=1e-6)


def test_evaluation_never_sees_the_training_images(tmp_path, record_files):
    """A source without a split of its own is refused."""
    path = tree(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    for spec in (f"folder:{path}", f"tfrecord:{record_files(2)}"):
        with pytest.raises(RequestError, match="images that were not trained on"):
            data(source=spec, data_dir=None).evaluation()


def test_a_missing_split_does_not_become_the_whole_folder(tmp_path):
    path = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/b/4.jpg")
    with pytest.raises(RequestError, match="images that were not trained on"):
        data(source=f"folder:{path}", eval_split="tset", data_dir=None).evaluation()


def test_splits_must_agree_on_the_classes(tmp_path):
    path = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/b/3.jpg", "test/c/4.jpg")
    with pytest.raises(RequestError, match="must be of classes that the training split has"):
        data(source=f"folder:{path}", data_dir=None).evaluation()
