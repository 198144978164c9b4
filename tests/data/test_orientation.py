"""If this breaks, photos of phones are seen lying on their side."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from simclr_tf.data import decode, header, webp

FORMS = ["JPEG", "PNG", *(["WEBP"] if webp.READABLE else [])]
EIGHT = range(1, 9)


def picture(width=37, height=22):
    y, x = np.mgrid[:height, :width]
    levels = np.stack([255 * x / width, 255 * y / height, 127 + 60 * np.sin(x / 9 + y / 5)], -1)
    return Image.fromarray(levels.astype(np.uint8))


def tiff(value, order="<", kind=3, entries_before=2):
    """EXIF data with other tags before the orientation, as cameras write them."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    stored = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    others = [struct.pack(order + "HHII", 0x9000 + i, 4, 1, 9) for i in range(entries_before)]
    own = struct.pack(order + "HHI", 0x0112, kind, 1) + stored
    count = struct.pack(order + "H", entries_before + 1)
    head = magic + struct.pack(order + "I", 10) + b"\0\0"
    return head + count + b"".join(others) + own + bytes(4)


def encode(image, form, exif=b"", **settings):
    buffer = io.BytesIO()
    if form == "JPEG":
        settings = {"quality": 95, "subsampling": 0, **settings}
    elif form == "WEBP":
        settings = {"lossless": True, **settings}
    image.save(buffer, form, **({"exif": exif} if exif else {}), **settings)
    return buffer.getvalue()


def upright(encoded):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


def difference(encoded):
    expected = upright(encoded)
    assert header.image_shape(encoded).numpy().tolist() == list(expected.shape[:2])
    return np.abs(decode.decode_any(encoded).numpy().astype(int) - expected).mean()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", "<>")
def test_all_eight_are_turned_as_pillow_does(form, order):
    for value in EIGHT:
        encoded = encode(picture(), form, b"Exif\0\0" + tiff(value, order))
        assert difference(encoded) <= (2 if form == "JPEG" else 0), value


@pytest.mark.parametrize("form", FORMS)
def test_crops_are_those_of_the_upright_image(form):
    boxes = [[2, 3, 14, 9], [0, 0, 20, 20]]
    for value in EIGHT:
        encoded = encode(picture(), form, b"Exif\0\0" + tiff(value))
        views = decode.decode_crops(encoded, tf.constant(boxes), [16, 8])
        whole = decode.decode_any(encoded)
        for (y, x, h, w), view in zip(boxes, views, strict=True):
            crop = tf.cast(whole[y : y + h, x : x + w], tf.float32)
            expected = tf.image.resize(crop, view.shape[:2], method="bicubic").numpy()
            assert np.abs(view - expected).max() < 1, (value, y)


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_sees_the_upright_image(form):
    """Up to the decoded rectangle's edge, as `decode_crops` says."""
    for value in EIGHT:
        encoded = encode(picture(90, 60), form, b"Exif\0\0" + tiff(value))
        upright_file = encode(Image.fromarray(upright(encoded)), "PNG")
        views = [decode.decode_center(e, 24).numpy() for e in (encoded, upright_file)]
        assert np.abs(views[0] - views[1]).mean() < 2 / 255, value


def segment(kind, content):
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments):
    plain = encode(picture(), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


EXIF = segment(0xE1, b"Exif\0\0" + tiff(6))
THUMBNAIL = encode(picture(8, 6), "JPEG", b"Exif\0\0" + tiff(3))


@pytest.mark.parametrize(
    "segments",
    [
        [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), EXIF],
        [segment(0xED, b"Photoshop 3.0\0" + THUMBNAIL), EXIF],
        [segment(0xFE, b"a word"), *[segment(0xE2, bytes(60_000))] * 5, b"\xff\xff", EXIF],
        [segment(0xE1, b"Exif\0\0" + tiff(6, kind=4, order=">"))],
        [segment(0xE1, b"Exif\0\0" + tiff(6, entries_before=300))],
    ],
    ids=["after XMP", "after a thumbnail", "late", "a long", "many entries"],
)
def test_it_is_found_wherever_it_stands(segments):
    assert header.layout(with_segments(*segments)).numpy().tolist() == [22, 37, 6]


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def test_it_is_found_behind_the_pixels_of_a_png():
    plain = encode(picture(), "PNG")
    late = plain[:-12] + chunk(b"eXIf", tiff(8, ">")) + plain[-12:]
    assert header.layout(late).numpy().tolist() == [22, 37, 8]


@pytest.mark.parametrize(
    "segments",
    [
        [segment(0xED, b"Photoshop 3.0\0" + THUMBNAIL)],
        [segment(0xE1, b"Exif\0\0" + tiff(0))],
        [segment(0xE1, b"Exif\0\0" + tiff(9))],
        [segment(0xE1, b"Exif\0\0" + tiff(6, kind=2))],
        [segment(0xE1, b"Exif\0\0")],
        [segment(0xE1, b"Exif\0\0" + tiff(6)[:20])],
        [segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")],
        [segment(0xE1, b"Exif\0\0XX*\0" + tiff(6)[4:])],
    ],
    ids=["another's", "0", "9", "text", "empty", "cut", "beyond", "no order"],
)
def test_wrong_data_count_as_upright(segments):
    encoded = with_segments(*segments)
    assert header.layout(encoded).numpy().tolist() == [22, 37, 1]
    np.testing.assert_array_equal(
        decode.decode_any(encoded), decode.decode_any(encode(picture(), "JPEG"))
    )


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORMS), st.data())
def test_damaged_data_never_make_an_image_fail(form, data):
    content = bytearray(tiff(data.draw(st.integers(0, 9)), data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    encoded = encode(picture(), form, b"Exif\0\0" + bytes(content))
    assert sorted(header.image_shape(encoded).numpy()) == [22, 37]
