"""If this breaks, pictures of 12 bits train as black ones, or other pictures change."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.data import bit_depth, cache
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import data
from simclr_tf.data.decode import decode_any
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 2**12, (4, 20, 24), np.uint16)


def png(levels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(levels).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_upper_bits_in_use_are_kept(bits):
    levels = RNG.integers(0, 2**16, (9, 7), np.uint16)
    found = decode_any(bit_depth.stretched(tf.constant(png(levels)), bits)).numpy()
    expected = np.minimum(levels.astype(int) // 2 ** (bits - 8), 255)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "encoded", [png(np.zeros((4, 4), np.uint8)), b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40)]
)
def test_what_is_no_image_of_16_bits_stays(encoded):
    assert bit_depth.stretched(tf.constant(encoded), 12).numpy() == encoded


@pytest.fixture
def folder(tmp_path):
    for i, levels in enumerate(LEVELS):
        (tmp_path / f"{i}.png").write_bytes(png(levels))
    return f"folder:{tmp_path}"


@pytest.fixture
def records(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "deep.tfrecord")) as writer:
        for levels in LEVELS:
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(levels)]))
            example = tf.train.Example(features=tf.train.Features(feature={"image": image}))
            writer.write(example.SerializeToString())
    return f"tfrecord:{tmp_path}/deep.tfrecord"


def test_decoded_copies_are_stretched(folder):
    held = cache.hold(open_source(folder, "train", None, bit_depth=12), "decoded")
    for i, levels in enumerate(LEVELS):
        np.testing.assert_array_equal(cache.pixels(held.reader()(i))[..., 0], levels // 16)


@pytest.mark.parametrize("held", ["none", "encoded"])
@pytest.mark.parametrize("kind", ["folder", "records"])
def test_every_source_stretches(request, kind, held):
    opened = open_source(request.getfixturevalue(kind), "train", None, bit_depth=12)
    source = cache.hold(opened, held)
    [batch] = [images for images, *_ in plain_images(source, 20, 4, BadImages(source))]
    center = np.asarray(batch)[..., 0].mean(axis=(1, 2))
    expected = (LEVELS // 16)[:, :, 2:22].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(center, expected, atol=0.02)
    assert not source.notes


def test_levels_that_end_early_are_noted_and_a_depth_must_be_one(folder):
    [note] = open_source(folder, "train", None).notes
    assert f"up to {LEVELS.max():,} only" in note and "data.bit_depth = 12" in note
    plain = open_source(folder, "train", None)
    deep = open_source(folder, "train", None, bit_depth=12)
    assert plain.fingerprint() != deep.fingerprint()
    with pytest.raises(RequestError, match=r"data\.bit_depth must be from 8 to 16. Received: 4"):
        data(bit_depth=4, data_dir=None)
