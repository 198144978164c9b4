"""If this breaks, WebP files are left out, read wrongly, or allocate without a bound."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.data import decode, header, webp
from tests.data.test_orientation import encode, picture

pytestmark = pytest.mark.skipif(not webp.READABLE, reason="TensorFlow 2.19 lacks the op")


def pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)


def with_alpha():
    image = picture().convert("RGBA")
    image.putalpha(100)
    return image


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    "image", [picture(), picture(36, 21), with_alpha()], ids=["RGB", "odd", "RGBA"]
)
def test_pixels_are_those_of_pillow(image, lossless):
    encoded = encode(image, "WEBP", lossless=lossless)
    expected = pillow(encoded)
    assert header.image_shape(encoded).numpy().tolist() == list(expected.shape[:2])
    assert np.abs(decode.decode_any(encoded).numpy() - expected).max() <= (0 if lossless else 3)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("image", [picture(), with_alpha()], ids=["RGB", "RGBA"])
def test_the_first_frame_of_a_moving_one_counts(image, lossless):
    later = [image.rotate(90), image.rotate(180)]
    moving = encode(image, "WEBP", lossless=lossless, save_all=True, append_images=later)
    expected = np.asarray(image.convert("RGB"), int)
    assert header.image_shape(moving).numpy().tolist() == [22, 37]
    assert np.abs(decode.decode_any(moving).numpy() - expected).mean() <= (0 if lossless else 6)


def huge_canvas():
    content = bytearray(encode(with_alpha(), "WEBP", lossless=False))
    assert content[12:16] == b"VP8X"
    content[24:30] = struct.pack("<I", 16_000)[:3] * 2
    return bytes(content)


def huge_lossless():
    content = bytearray(encode(picture(), "WEBP"))
    struct.pack_into("<I", content, 21, 0x0FFF_FFFF)
    return bytes(content)


@pytest.mark.parametrize(
    "encoded",
    [
        huge_canvas(),
        huge_lossless(),
        encode(picture(), "WEBP")[:100],
        encode(picture(), "WEBP")[:14],
        b"RIFF\x10\0\0\0WEBPVP9 ",
        b"RIFF\x10\0\0\0WEBPVP8X\x0a\0\0\0\2" + bytes(20),
        b"RIFF",
    ],
    ids=["canvas", "lossless", "cut", "start", "kind", "no frame", "four bytes"],
)
def test_hostile_ones_are_bad_images(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_any(encoded)
