"""Smooth pictures that look different from each other, and folders of files of them."""

import io
import pathlib

import numpy as np
from PIL import Image


def scene(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Smooth colour noise; another number is another picture."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def file_of(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def write(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
