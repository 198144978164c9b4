"""Says in words why an image does not decode, for the person who has to repair or remove it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data import decode, file_kinds, header, webp
from simclr_tf.errors import cause

# Start of frame of what the decoder lacks; 0xC0, 0xC1 and 0xC2 are read.
_JPEG_KINDS = {0xC3: "a lossless JPEG", 0xC9: "a JPEG with arithmetic coding"} | dict.fromkeys(
    (0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "a JPEG of a rare kind (arithmetic or lossless coding)"
)
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers that no length follows


def reason(image: str | os.PathLike | bytes) -> str | None:
    """Returns why an image does not decode; None if it decodes. Threads may call it.

    Args:
      image: the path of a file, or its content.
    """
    name, content = "", image
    if not isinstance(image, bytes):
        name = os.fsdecode(image)
        try:
            content = _read(name)
        except (OSError, tf.errors.OpError) as error:
            return f"cannot be read: {getattr(error, 'strerror', None) or cause(error)}"
    try:
        decode.decode_any(tf.constant(content))
    except tf.errors.InvalidArgumentError as error:
        return described(content, name, error)
    return None


def described(content: bytes, name: str, error: tf.errors.OpError) -> str:
    """Returns why a file does not decode, from its content and what TensorFlow says of it.

    Args:
      content: the whole file.
      name: its name, which tells whether it says that it is of another format; "" for none.
      error: what the decoder raised.
    """
    if content.startswith(b"\xff\xd8"):
        found = _of_jpeg(content)
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        found = _of_png(content)
    elif kind := _readable(content):
        found = _of_other(content, kind)
    else:
        kind = file_kinds.name_of(content)
        return f"{kind}{file_kinds.misnamed(kind, name)}" if kind else f"no image: {cause(error)}"
    return found or f"damaged: {cause(error)}"


def _readable(content: bytes) -> str | None:
    """Returns GIF, BMP, or WebP where it is read, if the content begins as one of these does."""
    if content.startswith(b"GIF8"):
        return "GIF"
    if content.startswith(b"RIFF"):
        return "WebP" if content[8:12] == b"WEBP" and webp.READABLE else None
    return "BMP" if content.startswith(b"BM") else None


def _read(name: str) -> bytes:
    if "://" in name:
        return tf.io.read_file(name).numpy()
    with open(name, "rb") as file:
        return file.read()


def _size(width: int, height: int) -> str | None:
    if 0 < width * height <= header.MAX_PIXELS:
        return None
    largest = f"; at most {header.MAX_PIXELS:,} pixels are read"
    return f"an image of {width} x {height} pixels" + (largest if width * height else "")


def _of_jpeg(content: bytes) -> str | None:
    scans, ended, frame = 0, False, None
    for marker, position in _markers(content):
        scans += marker == 0xDA
        ended |= marker == 0xD9
        if marker in _JPEG_KINDS:
            return _JPEG_KINDS[marker]
        if marker in (0xC0, 0xC1, 0xC2) and frame is None and position + 8 <= len(content):
            frame = struct.unpack_from(">BHHB", content, position + 2)
    if frame:
        bits, height, width, channels = frame
        if said := _size(width, height):
            return said
        if bits != 8:
            return f"a JPEG of {bits} bits a channel; 8 are read"
        if channels not in (1, 3, 4):
            return f"a colour space of {channels} channels; gray, colour and CMYK are read"
    if scans > header.MAX_SCANS:
        return f"a JPEG of {scans} scans; at most {header.MAX_SCANS} are read"
    return None if ended else "cut short"


def _markers(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields the markers of a JPEG and the places behind them, to its end or that of the file."""
    position = 2
    while (position := content.find(b"\xff", position)) >= 0 and position + 1 < len(content):
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker == 0 or marker in _ALONE:
            continue
        yield marker, position
        if marker == 0xD9:
            return
        if position + 2 > len(content):
            return
        position += struct.unpack_from(">H", content, position)[0]


def _of_png(content: bytes) -> str | None:
    if content[12:16] == b"CgBI":
        return "a PNG in Apple's own form (CgBI)"
    if len(content) < 33:
        return "cut short"
    if said := _size(*struct.unpack_from(">II", content, 16)):
        return said
    position = 8
    while position + 12 <= len(content):
        length = struct.unpack_from(">I", content, position)[0]
        if content[position + 4 : position + 8] == b"IEND":
            return None
        position += 12 + length
    return "cut short"


def _of_other(content: bytes, kind: str) -> str | None:
    """Returns why a GIF, BMP or WebP is not read, which its few numbers say."""
    size, said = len(content), None
    if kind == "GIF" and size >= 10:
        said = _size(*struct.unpack_from("<HH", content, 6))
        said = said or ("cut short" if content.rstrip(b"\0")[-1:] != b";" else None)
    elif kind == "BMP" and size >= 34:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
        said = _size(abs(width), abs(height))
        if bits not in (8, 24, 32) or compression:
            said = f"a BMP of {bits} bits, compression {compression}; 8, 24 and 32, uncompressed"
        needed = struct.unpack_from("<I", content, 10)[0] + (bits * width + 31) // 32 * 4 * abs(
            height
        )
        said = said or ("cut short" if size < needed else None)
    elif kind == "WebP" and size >= 8:
        said = "cut short" if size < 8 + struct.unpack_from("<I", content, 4)[0] else None
    else:
        said = "cut short"
    return said
