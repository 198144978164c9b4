"""Reads an image file of any format of Pillow: upright, in sRGB, of a bounded size."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Collection

import numpy as np
from PIL import Image, ImageCms

from simclr_tf.prepare import reasons

# Known by their first bytes, whatever the name says.
_BY_CONTENT = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "HEIF")
# EPS and WMF run other programs; the rest only announces formats that Pillow does not read.
_NEVER = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "FPX", "MIC"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
# At most this many pixels are stored without loss: at that size, blocks of 8 x 8 and chroma at half
# the resolution show, and bytes do not matter.
_LOSSLESS_PIXELS = 2**14
_LONGEST_SIDE = 65_000  # of a JPEG
_JPEG_QUALITY = 90  # 95 takes 1.5 times the bytes, and 1.2 times the time to decode


class Unreadable(Exception):
    """The file is no image that can be read, for the reason in the message."""


def read(
    content: bytes, name: str, size: int, bit_depth: int = 16
) -> tuple[Image.Image, tuple[int, int], str]:
    """Decodes an image file.

    Args:
      content: the file; of several frames or pages, the first counts.
      name: its name, whose extension helps to know formats without a signature.
      size: upper bound of the shorter side in pixels.
      bit_depth: the bits in use of gray levels that are stored in 16 or more.

    Returns:
      The picture: upright, sRGB, in mode RGB or L; width and height of the file's picture, upright;
      and what a person should know of it, or "".

    Raises:
      Unreadable: it does not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes below Pillow's bound
            image = _open(content, name)
            shape = image.size
            image.draft(image.mode, (2 * size, 2 * size))  # JPEG: scaled while it is decoded
            image = _loaded(image, content)
            orientation = _orientation(image)
            profile = image.info.get("icc_profile")
            image, note = _flat(image, bit_depth)
            image = _in_srgb(_bounded(image, size), profile)
    except Unreadable:
        raise
    except Exception as error:  # a file decides which error a decoder raises
        raise Unreadable(reasons.of(content, name, error)) from error
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
        shape = shape[::-1] if orientation >= 5 else shape
    return image, shape, note


def encoded(image: Image.Image) -> bytes:
    """Returns the picture as it is stored: JPEG, or PNG if it is small."""
    buffer = io.BytesIO()
    if image.width * image.height <= _LOSSLESS_PIXELS:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _open(content: bytes, name: str) -> Image.Image:
    known = _formats()
    by_name = Image.registered_extensions().get(os.path.splitext(name)[1].lower())
    tried = [form for form in (*_BY_CONTENT, by_name) if form in known]
    return Image.open(io.BytesIO(content), formats=tried)


@functools.cache
def _formats() -> Collection[str]:
    """Returns the formats that may be opened, with HEIC if its plug-in is installed."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    return frozenset(Image.OPEN) - _NEVER


def _loaded(image: Image.Image, content: bytes) -> Image.Image:
    """Decodes the pixels; of a JPEG, the end marker may be missing, but nothing else."""
    try:
        image.load()
        return image
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        decoded = [_with_end(image, content, filler) for filler in (b"", b"\x55" * 64)]
        # Filler in front of the end shows in the picture, unless the data were complete.
        if decoded[0].tobytes() != decoded[1].tobytes():
            raise
        return decoded[0]


def _with_end(image: Image.Image, content: bytes, filler: bytes) -> Image.Image:
    whole = Image.open(io.BytesIO(content + filler + b"\xff\xd9"), formats=["JPEG"])
    whole.draft(image.mode, image.size)
    whole.load()
    return whole


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation that is left once the image is loaded; 1 if it is unreadable."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a file decides which error its metadata cause
        return 1


def _flat(image: Image.Image, bit_depth: int) -> tuple[Image.Image, str]:
    """Returns the image in mode L, RGB or CMYK, without alpha, and a note on 16-bit levels."""
    mode = image.mode
    if mode in ("L", "RGB", "CMYK"):
        return image, ""
    if mode == "F":
        raise Unreadable("levels are floats, whose range is not known: save it with 8 or 16 bits")
    if mode.startswith("I"):
        return _from_16_bits(np.asarray(image).astype(np.int64), bit_depth)
    if mode in ("RGBa", "La"):
        image = image.convert(f"{mode[:-1]}A")
    return image.convert("L" if mode in ("1", "LA", "La") else "RGB"), ""


def _from_16_bits(levels: np.ndarray, bit_depth: int) -> tuple[Image.Image, str]:
    largest = int(levels.max())
    if levels.min() < 0 or largest >= 2**bit_depth:
        raise Unreadable(
            f"levels go from {levels.min()} to {largest}, beyond {bit_depth} bits: "
            + ("save it with 8 or 16 bits" if bit_depth == 16 else "give a larger --bit_depth")
        )
    used = max(8, largest.bit_length())
    note = f"uses {used} of {bit_depth} bits: if all do, give --bit_depth={used}"
    note = "" if used > bit_depth - 4 else note
    return Image.fromarray((levels >> (bit_depth - 8)).astype(np.uint8)), note


def _bounded(image: Image.Image, size: int) -> Image.Image:
    shorter = min(image.size)
    if max(image.size) * min(size, shorter) > shorter * _LONGEST_SIDE:
        raise Unreadable(f"{image.width} x {image.height} pixels: too long for its breadth")
    if shorter <= size:
        return image
    sides = [max(1, round(side * size / shorter)) for side in image.size]
    return image.resize(sides, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts colours by the profile; without a valid one they count as sRGB."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                return ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB") if image.mode == "CMYK" else image


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
