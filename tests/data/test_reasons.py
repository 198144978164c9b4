"""If this breaks, a person does not learn what is wrong with a file."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.data import decode, header
from simclr_tf.data.reasons import reason
from tests.data.test_header import gif, jpeg, many_scans, png
from tests.data.test_orientation import encode, picture

HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
AVIF = struct.pack(">I", 24) + b"ftypmif1" + bytes(4) + b"mif1avif"
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8))
BMP = encode(picture(), "BMP")


def no_colour():
    """A JPEG that says it has two channels."""
    content = bytearray(encode(picture(), "JPEG"))
    content[content.index(b"\xff\xc0") + 9] = 2
    return bytes(content)


REASONS = {
    "a.jpg": (HEIC, "a HEIC file named .jpg"),
    "b.png": (AVIF, "an AVIF file named .png"),
    "c.heic": (HEIC, "a HEIC file"),
    "d.jpg": (encode(picture(), "TIFF"), "a TIFF file named .jpg"),
    "e.jpg": (b"", "an empty file"),
    "f.jpg": (bytes(500), "a file of zeros"),
    "g.jpg": (b"<!DOCTYPE html><p>404 Not Found", "an HTML page"),
    "h.jpg": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    "i.jpg": (encode(NOISE, "JPEG")[:2000], "cut short"),
    "j.png": (encode(NOISE, "PNG")[:2000], "cut short"),
    "k.bmp": (BMP[:300], "cut short"),
    "l.gif": (gif((30, 40))[:300], "cut short"),
    "m.webp": (encode(NOISE, "WEBP")[:300], "cut short"),
    "n.png": (png(13_000, 13_000), "an image of 13000 x 13000 pixels"),
    "o.jpg": (jpeg(65_500, 65_500), "an image of 65500 x 65500 pixels"),
    "p.png": (png(0, 40), "an image of 0 x 40 pixels"),
    "q.jpg": (no_colour(), "colour space of 2 channels"),
    "r.jpg": (many_scans(129), "scans; at most 128 are read"),
    "s.bmp": (encode(picture().convert("1"), "BMP"), "a BMP of 1 bits"),
    "t.jpg": (b"\0\5\x16\7\0\2\0\0Mac OS X", "a file of macOS"),
    "u.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "cut short"),
    "v.jpg": (b"hello\n", "a text file"),
    "w.png": (encode(picture(), "PNG")[:60] + b"\1" + encode(picture(), "PNG")[61:], "damaged"),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_named(name, tmp_path):
    content, expected = REASONS[name]
    (tmp_path / name).write_bytes(content)
    assert expected in reason(str(tmp_path / name))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF"])
def test_there_is_none_for_what_decodes(form):
    assert reason(encode(picture(), form)) is None


def test_a_file_that_cannot_be_read_is_one_too(tmp_path):
    assert "cannot be read" in reason(tmp_path / "nothing.jpg")


JPEGS = {
    "baseline": encode(NOISE, "JPEG"),
    "progressive": encode(NOISE, "JPEG", progressive=True),
    "optimized": encode(picture(80, 64), "JPEG", optimize=True, subsampling=2),
    "gray": encode(NOISE.convert("L"), "JPEG"),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_only_the_end_marker_may_be_missing(kind):
    whole = JPEGS[kind]
    expected = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"), int)
    for missing in (1, 2):
        image = decode.decode_any(whole[:-missing]).numpy()
        assert np.abs(image - expected).mean() <= 2
        np.testing.assert_array_equal(image, decode.decode_any(whole))
        assert decode.decode_crops(whole[:-missing], tf.constant([[0, 0, 64, 64]]), [16])
    scan = whole.rindex(b"\xff\xda")
    for length in np.linspace(scan + 20, len(whole) - 6, 12).astype(int):
        assert reason(whole[:length]) == "cut short"


def test_what_follows_the_end_does_not_matter():
    """As after photos that hold a film, or a second image."""
    whole = encode(picture(), "JPEG")
    for tail in (b"\0" * 9, b"\0\0\0\x18ftypmp42" + bytes(99), whole[:-2]):
        np.testing.assert_array_equal(decode.decode_any(whole + tail), decode.decode_any(whole))
        assert header.lacks_end(whole + tail).numpy() == (tail == whole[:-2])
