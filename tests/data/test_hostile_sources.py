"""If this breaks, data of other people reaches files outside of it, or stops a run."""

import os
import socket

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simclr_tf.data import folder_source, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError


@pytest.fixture
def data(tmp_path):
    """A folder with one image, beside a file that is not part of it."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "other.jpg").write_bytes(b"")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.jpg").write_bytes(b"")
    return tmp_path / "data"


def names(path, split="train"):
    source = folder_source.open_folder(str(path), split)
    return [os.path.relpath(p, path) for p in source.paths]


def test_links_are_followed_within_the_folder_alone(data):
    (data / "within.jpg").symlink_to("own.jpg")
    (data / "out.jpg").symlink_to("../secret.jpg")
    (data / "absolute.jpg").symlink_to(data.parent / "secret.jpg")
    (data / "circle.jpg").symlink_to("circle.jpg")
    (data / "gone.jpg").symlink_to("nothing.jpg")
    (data / "deep").symlink_to("../outside")
    assert names(data) == ["own.jpg", "within.jpg"]


def test_links_that_lead_outside_are_followed_if_asked(data):
    (data / "out.jpg").symlink_to("../secret.jpg")
    (data / "deep").symlink_to("../outside")
    (data / "train").symlink_to("../outside")
    source = folder_source.open_folder(str(data), ".", follow_links=True)
    found = [os.path.relpath(p, data) for p in source.paths]
    assert found == ["deep/other.jpg", "out.jpg", "own.jpg"]
    assert folder_source.open_folder(str(data), "train", follow_links=True).num_examples == 1
    with pytest.raises(RequestError, match="must lie in the data"):
        folder_source.open_folder(str(data), "../outside", follow_links=True)


def test_the_folder_itself_may_be_a_link(data):
    link = data.parent / "link"
    link.symlink_to("data")
    assert names(link) == ["own.jpg"]


def test_a_split_that_is_a_link_out_is_refused(data):
    (data / "train").symlink_to("../outside")
    with pytest.raises(RequestError, match="must lie in the data"):
        folder_source.open_folder(str(data), "train")


@pytest.mark.parametrize("split", ["../outside", "/"])
def test_a_split_is_no_way_out(data, split):
    with pytest.raises(RequestError, match="must lie in the data"):
        folder_source.open_folder(str(data), split)


def test_pipes_sockets_folders_and_endless_files_are_left_out(data, monkeypatch):
    monkeypatch.chdir(data)
    os.mkfifo("pipe.jpg")
    (data / "folder.jpg").mkdir()
    (data / "device.jpg").symlink_to("/dev/zero")
    with (data / "huge.jpg").open("wb") as file:
        file.truncate(2**40)  # takes no space
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert names(data) == ["own.jpg"]


def test_what_is_left_out_is_counted(data):
    (data / "own.jpg").unlink()
    for i in range(3):
        (data / f"{i}.jpg").symlink_to("../secret.jpg")
    os.mkfifo(data / "pipe.jpg")
    with pytest.raises(
        RequestError, match=r"Left out: 3 links that lead outside.*, 1 special file"
    ):
        folder_source.open_folder(str(data), "train")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "kubric:x", "huggingface:x/y"]
)
def test_names_of_data_sets_are_no_paths_and_no_code(name, tmp_path):
    with pytest.raises(RequestError):
        open_source(f"tfds:{name}", "train", str(tmp_path))


def example(**features):
    kinds = {
        bytes: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)),
        int: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v)),
        float: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
    }
    features = {name: kinds[type(v[0])](v) for name, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def image():
    return tf.io.encode_jpeg(np.zeros([9, 9, 3], np.uint8)).numpy()


def write(path, *records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def test_records_of_wrong_features_are_bad_images(tmp_path, image):
    good = example(image=[image])
    records = [
        example(image=[3]),
        example(image=[1.5]),
        example(other=[image]),
        example(image=[image, image]),
        b"no example",
        b"",
    ]
    source = tfrecord_source.open_tfrecord(write(tmp_path / "a.tfrecord", good, *records, good))
    bad = BadImages(source, limit=1.0)
    found = [i for _, _, index in plain_images(source, 8, 4, bad) for i in index]
    assert found == [0, 7] and len(bad) == 6


@pytest.mark.parametrize(
    ("damage", "words"),
    [("flipped", "corrupted"), ("shortened", "truncated"), ("gone", "No such file")],
)
def test_evaluation_ends_where_a_file_was_damaged_since(damage, words, tmp_path, image):
    """Where the next record begins is not known, so nobody could say what was left out."""
    records = [example(image=[image], label=[i]) for i in range(4)]
    for name in "ab":
        write(tmp_path / f"{name}.tfrecord", *records)
    source = tfrecord_source.open_tfrecord(f"{tmp_path}/*.tfrecord")
    file = tmp_path / "a.tfrecord"
    content = bytearray(file.read_bytes())
    within_second = len(content) // 4 + 40
    content[within_second] ^= 1
    file.write_bytes(content if damage == "flipped" else content[:within_second])
    if damage == "gone":
        file.unlink()
    bad = BadImages(source, limit=1.0)
    with pytest.raises(RequestError, match=f"must be readable.*{words}"):
        list(plain_images(source, 8, 3, bad))
    assert len(bad) == 0


@pytest.mark.parametrize(
    "labels",
    [[b"x"], [1.5], [1, 2], [2**62], [-5]],
    ids=["text", "real", "two", "huge", "negative"],
)
def test_labels_that_are_none_are_refused(labels, tmp_path, image):
    records = [example(image=[image], label=[1]), example(image=[image], label=labels)]
    with pytest.raises(RequestError, match="label"):
        tfrecord_source.open_tfrecord(write(tmp_path / "a.tfrecord", *records))


@pytest.mark.parametrize("first", [b"no example", b"", example(thing=[1])])
def test_files_of_other_records_are_refused(first, tmp_path):
    with pytest.raises(RequestError):
        tfrecord_source.open_tfrecord(write(tmp_path / "a.tfrecord", first))


def test_pipes_and_endless_records_are_no_record_files(tmp_path):
    os.mkfifo(tmp_path / "a.tfrecord")
    with pytest.raises(RequestError, match="No TFRecord file"):
        tfrecord_source.open_tfrecord(f"{tmp_path}/*.tfrecord")
    with (tmp_path / "b.tfrecord").open("wb") as file:
        file.write((2**40).to_bytes(8, "little") + bytes.fromhex("aa3d6be4"))
        file.truncate(2**40 + 16)
    with pytest.raises(RequestError, match="at most 1024 MiB"):
        tfrecord_source.open_tfrecord(f"{tmp_path}/*.tfrecord")


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(choices=st.data())
def test_damaged_files_are_refused_or_read(choices, tmp_path_factory, image):
    path = tmp_path_factory.getbasetemp() / "damaged.tfrecord"
    write(path, example(image=[image], label=[1]))
    content = bytearray(path.read_bytes())
    for _ in range(choices.draw(st.integers(1, 4))):
        place = choices.draw(st.integers(0, len(content) - 1))
        content[place] = choices.draw(st.integers(0, 255))
    path.write_bytes(content[: choices.draw(st.integers(1, len(content)))])
    try:
        source = tfrecord_source.open_tfrecord(str(path))
    except RequestError:
        return
    assert source.num_examples >= 1
