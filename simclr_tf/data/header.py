"""Reads the header of an encoded image before anything is allocated for its pixels.

All of it is TensorFlow ops, so a SavedModel can bound its input images too. The sizes are those
that the decoders use. A refused image raises tf.errors.InvalidArgumentError.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf.data import exif, upright, webp
from simclr_tf.data.byte_ops import checked, contains, numbers, part_of, traced_once

# Pixels of one image: 256 MiB as RGB.
MAX_PIXELS = 2**28 // 3
# Scans of a progressive JPEG; the decoder processes the whole image for each. Usual are 10.
MAX_SCANS = 128
# Pieces of a GIF, of at most 255 bytes each, to the end of its first frame.
MAX_GIF_PIECES = 2**16

JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
# A scan's marker, and the upper byte of its header's length, which is below 256.
_JPEG_SCAN = b"\xff\xda\x00"
_FORMATS = "JPEG, PNG, GIF, BMP or WebP" if webp.READABLE else "JPEG, PNG, GIF or BMP"
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, b"\x3b"


def image_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width of the upright image, int32 [2], if it may be decoded.

    Args:
      encoded: string scalar: JPEG, PNG, GIF or WebP (their first frames), or uncompressed BMP of 8,
        24 or 32 bits.
    """
    return upright_shape(layout(encoded))


@traced_once
def layout(encoded: tf.Tensor) -> tf.Tensor:
    """Returns how an image is stored: height, width and EXIF orientation (1 to 8), int32 [3].

    Args:
      encoded: as for `image_shape`, which refuses the same images.
    """

    def png_found():
        return _png_shape(encoded), exif.likely_in_png(encoded)

    def plain(shape: Callable) -> Callable:
        return lambda: (shape(encoded), tf.constant(False))

    found = png_found
    if webp.READABLE:
        found = _either(
            webp.is_webp(encoded), lambda: (webp.shape(encoded), tf.constant(True)), found
        )
    found = _either(is_bmp(encoded), plain(_bmp_shape), found)
    found = _either(is_gif(encoded), plain(_gif_shape), found)
    shape, likely = _either(tf.io.is_jpeg(encoded), lambda: _jpeg_shape(encoded), found)()
    height, width = tf.unstack(tf.cast(shape, tf.int64))
    possible = tf.logical_and(tf.minimum(height, width) > 0, height * width <= MAX_PIXELS)
    message = f"An image must have from 1 to {MAX_PIXELS} pixels. Received height and width:"
    turned = tf.cond(likely, lambda: exif.orientation(encoded), lambda: tf.constant(1))
    return tf.concat([checked(possible, shape, message, shape), turned[tf.newaxis]], axis=0)


def upright_shape(stored: tf.Tensor) -> tf.Tensor:
    """Returns height and width of the upright image, int32 [2], of its `layout`."""
    return upright.shape(stored[:2], stored[2])


def _either(condition: tf.Tensor, first: Callable, second: Callable) -> Callable:
    return lambda: tf.cond(condition, first, second)


def is_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes begin as those of a GIF."""
    return tf.strings.substr(encoded, 0, 4) == b"GIF8"


def is_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes begin as those of a BMP."""
    return tf.strings.substr(encoded, 0, 2) == b"BM"


def bmp_table(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the colours of an 8-bit BMP, uint8 [N, 3]; the file holds BGR before its pixels."""
    begin = 14 + numbers(encoded, 14, 1, tf.int32)[0]
    end = numbers(encoded, 10, 1, tf.int32)[0]
    colours = tf.io.decode_raw(part_of(encoded, begin, end - begin), tf.uint8)
    return tf.reshape(colours, [-1, 4])[:, 2::-1]


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Cuts a GIF after its first frame, since the decoder would unpack all frames."""
    _, _, end = _gif_frame(encoded)
    return tf.strings.substr(encoded, 0, end) + _GIF_END


def lacks_end(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a JPEG with a scan has no end marker after its last scan began."""

    def search():
        parts = tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=_JPEG_SCAN).values
        return (tf.size(parts) > 1) & ~contains(parts[-1], JPEG_END)

    encoded = tf.convert_to_tensor(encoded)
    size = tf.strings.length(encoded)
    ends = tf.strings.substr(encoded, tf.maximum(size - 2, 0), 2) == JPEG_END
    return tf.cond(tf.io.is_jpeg(encoded) & ~ends, search, lambda: tf.constant(False))


def _jpeg_shape(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the shape as stored, and whether there may be EXIF data."""
    parts = tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=_JPEG_SCAN).values
    scans = tf.size(parts) - 1
    message = f"A JPEG must have at most {MAX_SCANS} scans. Received:"
    shape = tf.image.extract_jpeg_shape(checked(scans <= MAX_SCANS, encoded, message, scans))[:2]
    return shape, exif.likely_in_jpeg(parts[0])


def _png_shape(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 8)
    shown = tf.strings.unicode_transcode(start, "UTF-8", "UTF-8")
    message = f"An image must be a {_FORMATS}. Received a file that begins with:"
    encoded = checked(start == _PNG, encoded, message, shown)
    first = part_of(encoded, 12, 4)
    encoded = checked(first == b"IHDR", encoded, "A PNG must begin with its header.")
    return numbers(encoded, 16, 2, tf.int32, little_endian=False)[::-1]


def _bmp_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the shape; the height is negative if the image is stored from its top."""
    bits, compression = numbers(encoded, 28, 1, tf.uint16), numbers(encoded, 30, 1, tf.int32)
    known = tf.reduce_any(tf.cast(bits, tf.int32) == [8, 24, 32]) & (compression[0] == 0)
    message = "A BMP must have 8, 24 or 32 bits, not compressed. Received bits and compression:"
    encoded = checked(known, encoded, message, bits, compression)
    return tf.abs(numbers(encoded, 18, 2, tf.int32)[::-1])


def _gif_shape(encoded: tf.Tensor) -> tf.Tensor:
    screen = tf.cast(numbers(encoded, 6, 2, tf.uint16), tf.int32)[::-1]
    corner, shape, _ = _gif_frame(encoded)
    within = tf.reduce_all(corner + shape <= screen)
    message = (
        "The first frame of a GIF must lie within the screen. Received their height and width:"
    )
    return checked(within, shape, message, shape, screen)


def _gif_frame(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the first frame: y and x, height and width, int32 [2] each, and the byte after it."""
    file = tf.io.decode_raw(encoded, tf.uint8)

    def at(position):
        return tf.cast(file[position], tf.int32)  # beyond the end: InvalidArgumentError

    def after_table(flags):
        return tf.where(flags & 0x80 > 0, 6 * tf.bitwise.left_shift(1, flags & 7), 0)

    def after_pieces(position, left):
        position, left = tf.while_loop(
            lambda position, left: (at(position) > 0) & (left > 0),
            lambda position, left: (position + 1 + at(position), left - 1),
            (position, left),
        )
        return position + 1, left

    position, left = tf.while_loop(
        lambda position, left: (at(position) == _GIF_EXTENSION) & (left > 0),
        lambda position, left: after_pieces(position + 2, left - 1),
        (13 + after_table(at(10)), tf.constant(MAX_GIF_PIECES)),
    )
    found = at(position) == _GIF_FRAME
    message = "A GIF must hold a frame. Received none in pieces:"
    position = checked(found, position, message, left)  # what is read below waits for it
    x, y, width, height = tf.unstack(
        tf.cast(numbers(encoded, position + 1, 4, tf.uint16), tf.int32)
    )
    end, left = after_pieces(position + 11 + after_table(at(position + 9)), left)
    message = f"The first frame of a GIF must end within {MAX_GIF_PIECES} pieces. Bytes:"
    end = checked(left > 0, end, message, tf.size(file))
    return tf.stack([y, x]), tf.stack([height, width]), end
