"""Reads the header of an encoded image before anything is allocated for its pixels.

All of it is TensorFlow ops, so a SavedModel can bound its input images too. The sizes are those
that the decoders use. A refused image raises tf.errors.InvalidArgumentError.
"""

from __future__ import annotations

import tensorflow as tf

# Pixels of one image: 256 MiB as RGB.
MAX_PIXELS = 2**28 // 3
# Scans of a progressive JPEG; the decoder processes the whole image for each. Usual are 10.
MAX_SCANS = 128
# Pieces of a GIF, of at most 255 bytes each, to the end of its first frame.
MAX_GIF_PIECES = 2**16

_PNG = b"\x89PNG\r\n\x1a\n"
# A scan's marker, and the upper byte of its header's length, which is below 256.
_JPEG_SCAN = b"\xff\xda\x00"
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, b"\x3b"

# Traces a function of an encoded image once per process. Its ops are many, and each data set uses
# them several times.
traced_once = tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])


@traced_once
def image_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width of an encoded image, int32 [2], if it may be decoded.

    Args:
      encoded: string scalar: JPEG, PNG, GIF (its first frame), or uncompressed BMP of 8, 24 or 32
        bits.
    """

    def jpeg_or(other):
        return tf.cond(tf.io.is_jpeg(encoded), lambda: _jpeg_shape(encoded), other)

    def gif_or(other):
        return tf.cond(is_gif(encoded), lambda: _gif_shape(encoded), other)

    def bmp_or(other):
        return tf.cond(is_bmp(encoded), lambda: _bmp_shape(encoded), other)

    shape = jpeg_or(lambda: gif_or(lambda: bmp_or(lambda: _png_shape(encoded))))
    height, width = tf.unstack(tf.cast(shape, tf.int64))
    possible = tf.logical_and(tf.minimum(height, width) > 0, height * width <= MAX_PIXELS)
    message = f"An image must have from 1 to {MAX_PIXELS} pixels. Received height and width:"
    return _if(possible, shape, message, shape)


def is_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes begin as those of a GIF."""
    return tf.strings.substr(encoded, 0, 4) == b"GIF8"


def is_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes begin as those of a BMP."""
    return tf.strings.substr(encoded, 0, 2) == b"BM"


def bmp_table(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the colours of an 8-bit BMP, uint8 [N, 3]; the file holds BGR before its pixels."""
    begin = 14 + _numbers(encoded, 14, 1, tf.int32)[0]
    end = _numbers(encoded, 10, 1, tf.int32)[0]
    colours = tf.io.decode_raw(_part(encoded, begin, end - begin), tf.uint8)
    return tf.reshape(colours, [-1, 4])[:, 2::-1]


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Cuts a GIF after its first frame, since the decoder would unpack all frames."""
    _, _, end = _gif_frame(encoded)
    return tf.strings.substr(encoded, 0, end) + _GIF_END


def _jpeg_shape(encoded: tf.Tensor) -> tf.Tensor:
    parts = tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=_JPEG_SCAN).values
    scans = tf.size(parts) - 1
    message = f"A JPEG must have at most {MAX_SCANS} scans. Received:"
    return tf.image.extract_jpeg_shape(_if(scans <= MAX_SCANS, encoded, message, scans))[:2]


def _png_shape(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 8)
    shown = tf.strings.unicode_transcode(start, "UTF-8", "UTF-8")
    message = "An image must be a JPEG, PNG, GIF or BMP. Received a file that begins with:"
    encoded = _if(start == _PNG, encoded, message, shown)
    first = _part(encoded, 12, 4)
    encoded = _if(first == b"IHDR", encoded, "A PNG must begin with its header.")
    return _numbers(encoded, 16, 2, tf.int32, little_endian=False)[::-1]


def _bmp_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the shape; the height is negative if the image is stored from its top."""
    bits, compression = _numbers(encoded, 28, 1, tf.uint16), _numbers(encoded, 30, 1, tf.int32)
    known = tf.reduce_any(tf.cast(bits, tf.int32) == [8, 24, 32]) & (compression[0] == 0)
    message = "A BMP must have 8, 24 or 32 bits, not compressed. Received bits and compression:"
    encoded = _if(known, encoded, message, bits, compression)
    return tf.abs(_numbers(encoded, 18, 2, tf.int32)[::-1])


def _gif_shape(encoded: tf.Tensor) -> tf.Tensor:
    screen = tf.cast(_numbers(encoded, 6, 2, tf.uint16), tf.int32)[::-1]
    corner, shape, _ = _gif_frame(encoded)
    within = tf.reduce_all(corner + shape <= screen)
    message = (
        "The first frame of a GIF must lie within the screen. Received their height and width:"
    )
    return _if(within, shape, message, shape, screen)


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
    position = _if(found, position, message, left)  # what is read below waits for it
    x, y, width, height = tf.unstack(
        tf.cast(_numbers(encoded, position + 1, 4, tf.uint16), tf.int32)
    )
    end, left = after_pieces(position + 11 + after_table(at(position + 9)), left)
    message = f"The first frame of a GIF must end within {MAX_GIF_PIECES} pieces. Bytes:"
    end = _if(left > 0, end, message, tf.size(file))
    return tf.stack([y, x]), tf.stack([height, width]), end


def _numbers(
    encoded: tf.Tensor, position: int | tf.Tensor, count: int, dtype: tf.DType, little_endian=True
) -> tf.Tensor:
    """Reads `count` numbers from byte `position` on; raises if the file ends before."""
    part = _part(encoded, position, count * dtype.size)
    return tf.ensure_shape(tf.io.decode_raw(part, dtype, little_endian=little_endian), [count])


def _part(encoded: tf.Tensor, position: int | tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """Returns bytes that must exist; the error of `substr` itself would hold the whole file."""
    size = tf.strings.length(encoded)
    left = size - position
    there = (position >= 0) & (length >= 0) & (left >= length)
    message = "An image must hold what its header says. Received the length of its file:"
    return tf.strings.substr(_if(there, encoded, message, size), position, length)


def _if(holds: tf.Tensor, value: tf.Tensor, message: str, *received: tf.Tensor) -> tf.Tensor:
    """Returns `value` if the condition holds, else raises InvalidArgumentError."""
    # Without the branch that tf.debugging.Assert adds, which takes longer than the rest.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=holds, data=[message, *received])]):
        return tf.identity(value)
