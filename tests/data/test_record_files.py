"""If this breaks, compressed records are read wrongly, or a file's fault is told as another."""

import gzip
import zlib

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import cache, record_files, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.order import Order
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.subset import sample
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError

PACKED = {"GZIP": gzip.compress, "ZLIB": zlib.compress}


@pytest.fixture
def twins(record_files, tmp_path):
    """The same three files of records: plain, and packed by Python's own modules."""

    def write(compression):
        folder = tmp_path / compression
        folder.mkdir()
        for path in sorted(tmp_path.glob("part-*.tfrecord")):
            (folder / path.name).write_bytes(PACKED[compression](path.read_bytes()))
        return tfrecord_source.open_tfrecord(f"{folder}/*.tfrecord")

    return tfrecord_source.open_tfrecord(record_files(5, 4, 3)), write


def blocks(source, start_step=0, index=0, num_hosts=1):
    """What training reads, before images are decoded."""
    host = HostSlice(index=index, num_hosts=num_hosts, replicas=1, per_replica=2)
    order = Order(seed=3, host=host, start_step=start_step, shuffle_buffer=4)
    with tf.device("/CPU:0"):
        return list(source.blocks(order)[0].take(9).as_numpy_iterator())


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_packed_records_are_read_as_plain_ones_everywhere(compression, twins):
    plain, write = twins
    packed = write(compression)
    assert {file.compression for file in packed.files} == {compression}
    assert packed.num_examples == 12 and packed.class_names == plain.class_names
    assert packed.identity() == plain.identity() and packed.fingerprint() != plain.fingerprint()
    held = cache.hold(packed, "encoded")
    parts = (lambda s: s, lambda s: sample(s, 5, 0), lambda s: s.select([9, 2]))
    for part in parts:
        expected = list(part(plain).stored().as_numpy_iterator())
        assert list(part(packed).stored().as_numpy_iterator()) == expected
    wheres = ({}, {"start_step": 4}, {"index": 1, "num_hosts": 2}, {"index": 3, "num_hosts": 5})
    expected = [blocks(plain, **where) for where in wheres]
    for places, where in zip(expected, wheres, strict=True):
        same(blocks(packed, **where), places)
    for file in packed.files:
        with open(file.path, "wb") as emptied:
            emptied.truncate()
    same(blocks(held), expected[0])


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz", "a"])
@pytest.mark.parametrize("content", ["", "GZIP", "ZLIB"])
def test_the_content_tells_the_compression(name, content, tmp_path):
    path = str(tmp_path / name)
    with tf.io.TFRecordWriter(path, content) as writer:
        for i in range(3):
            writer.write(bytes(5 + i))
    (file,) = record_files.record_files([path])
    assert (file.compression, file.count) == (content, 3)


def test_a_plain_file_may_begin_like_a_packed_one(tmp_path):
    """Its first record has as many bytes as the header of GZIP or ZLIB reads as a number."""
    for begin in (b"\x1f\x8b\x08", b"\x78\x9c"):
        path = str(tmp_path / begin.hex())
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(bytes(int.from_bytes(begin, "little")))
        (file,) = record_files.record_files([path])
        assert (file.compression, file.count) == ("", 1)


def test_members_of_a_packed_file_follow_each_other(record_files, tmp_path):
    record_files(2, 3)
    parts = [gzip.compress(p.read_bytes()) for p in sorted(tmp_path.glob("part-*"))]
    (tmp_path / "both.gz").write_bytes(b"".join(parts))
    source = tfrecord_source.open_tfrecord(str(tmp_path / "both.gz"))
    assert source.num_examples == 5
    assert len(next(plain_images(source, 12, 9, BadImages(source)))[0]) == 5


def test_damaged_packed_files_are_named(tmp_path, record_files):
    record_files(40)
    content = (tmp_path / "part-000.tfrecord").read_bytes()
    zipped, deflated = gzip.compress(content), zlib.compress(content)
    cases = {
        "cut.gz": (zipped[: len(zipped) // 2], r"cut\.gz is cut short after rec"),
        "cut.zlib": (deflated[: len(deflated) // 2], "is cut short after record"),
        "other.gz": (gzip.compress(b"no record in here"), "a GZIP file of something else"),
        "huge.gz": (gzip.compress((2**40).to_bytes(8, "little") + b"\0\0\0\0"), "something else"),
        "text.json": (b'{"classes": ["cat", "dog"]}', "does not begin with a record's length"),
        "short": (b"few", "is cut short after record 0"),
        "none.gz": (gzip.compress(b""), "hold no record"),
    }
    flipped = bytearray(zipped)
    flipped[2000:2010] = bytes(10)
    cases["flipped.gz"] = (flipped, "damaged|cut short|be intact|at most 1024 MiB")
    for name, (damaged, words) in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(RequestError, match=words):
            tfrecord_source.open_tfrecord(str(tmp_path / name))
