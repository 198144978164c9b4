"""Small images of every kind that a folder may hold."""

import functools
import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth picture of one colour ramp, told apart from others by its number."""
    x = np.linspace(0, 255, size[0])[None, :, None]
    y = np.linspace(0, 255, size[1])[:, None, None]
    tint = np.array([number * 37 % 256, number * 91 % 256, number * 13 % 256])
    return Image.fromarray(((x + y + 2 * tint) / 4).astype(np.uint8))


def encode(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def write_photos(folder: pathlib.Path) -> pathlib.Path:
    """Twelve images without classes: JPEG, grayscale, CMYK, PNG with alpha, BMP, GIF, odd sizes."""
    (folder / "deep").mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(encode(picture(i, (31 + i, 57 - i)), "JPEG"))
    (folder / "gray.JPG").write_bytes(encode(picture(6).convert("L"), "JPEG"))
    (folder / "cmyk.jpeg").write_bytes(encode(picture(7).convert("CMYK"), "JPEG"))
    (folder / "alpha.png").write_bytes(encode(picture(8).convert("RGBA"), "PNG"))
    (folder / "deep" / "small.png").write_bytes(encode(picture(9, (9, 5)), "PNG"))
    (folder / "deep" / "plain.bmp").write_bytes(encode(picture(10), "BMP"))
    (folder / "deep" / "moving.gif").write_bytes(encode(picture(11), "GIF"))
    (folder / "notes.txt").write_text("not an image")
    return folder


def write_records(
    folder: pathlib.Path,
    *counts: int,
    labelled: bool = True,
    bad: frozenset[int] = frozenset(),
) -> str:
    """Writes `counts[i]` JPEGs into file i, labels running on; returns the glob."""
    number = 0
    for i, count in enumerate(counts):
        with tf.io.TFRecordWriter(str(folder / f"part-{i:03d}.tfrecord")) as writer:
            for _ in range(count):
                image = encode(picture(number), "JPEG")
                feature = {"image/encoded": image[:40] if number in bad else image}
                writer.write(_example(feature, number if labelled else None))
                number += 1
    return str(folder / "part-*.tfrecord")


@pytest.fixture
def photos(tmp_path) -> pathlib.Path:
    """The folder of `write_photos`, which a test may change."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def record_files(tmp_path):
    """`write_records` into the test's folder."""
    return functools.partial(write_records, tmp_path)


def _example(feature: dict[str, bytes], label: int | None) -> bytes:
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in feature.items()
    }
    if label is not None:
        features["image/class/label"] = tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        )
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
