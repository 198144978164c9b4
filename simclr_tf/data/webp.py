"""Reads the sizes in a WebP file, and cuts out the first frame of an animated one.

A WebP is a RIFF file. Its first chunk is a lossy image (VP8), a lossless one (VP8L), or says what
else there is (VP8X). TensorFlow decodes WebP from version 2.20 on.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data.byte_ops import checked, numbers, part_of, value_of, walk
from simclr_tf.data.exif import riff_length

READABLE = hasattr(tf.raw_ops, "DecodeWebP")

_HEADER, _CHUNK_HEAD, _FRAME_HEAD = 12, 8, 16
_MAX_CHUNKS = 64  # before the first frame; usual are 3


def is_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes begin as those of a WebP."""
    start = _start(encoded)
    webp = tf.strings.substr(start, 8, 4) == b"WEBP"
    return webp & (tf.strings.substr(start, 0, 4) == b"RIFF")


def shape(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width, int32 [2], of the image or of the first frame, as stored."""
    still = first_frame(encoded)
    kind = part_of(still, _HEADER, 4)
    known = tf.reduce_any(kind == [b"VP8 ", b"VP8L", b"VP8X"])
    message = "A WebP must begin with a chunk VP8, VP8L or VP8X. Received the length of its file:"
    still = checked(known, still, message, tf.strings.length(encoded))

    def lossy():
        return tf.cast(numbers(still, 26, 2, tf.uint16), tf.int32)[::-1] & 0x3FFF

    def lossless():
        bits = tf.cast(numbers(still, 21, 4, tf.uint8), tf.int64)
        both = tf.cast(value_of(bits[::-1]), tf.int32)
        return tf.stack([tf.bitwise.right_shift(both, 14) & 0x3FFF, both & 0x3FFF]) + 1

    def extended():
        digits = numbers(still, 24, 6, tf.uint8)
        sides = [value_of(digits[5:2:-1]), value_of(digits[2::-1])]
        return tf.cast(tf.stack(sides), tf.int32) + 1

    other = tf.cond(kind == b"VP8L", lambda: lossless(), lambda: extended())
    return tf.cond(kind == b"VP8 ", lossy, lambda: other)


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Makes a still WebP of the first frame of an animated one; returns others unchanged.

    The decoder would unpack all frames. The frame's own image goes before all other chunks, which
    the decoder then ignores, so that the length at the beginning stays valid.
    """

    def cut_out() -> tf.Tensor:
        frame = _found(encoded, _HEADER, [b"ANMF"])
        inside = frame + _CHUNK_HEAD + _FRAME_HEAD
        place = _found(encoded, inside, [b"VP8 ", b"VP8L"])  # behind its alpha
        head = numbers(encoded, place, 8, tf.uint8)
        image = part_of(encoded, place, _CHUNK_HEAD + value_of(head[:3:-1]))
        padding = tf.where(tf.strings.length(image) % 2 == 1, b"\0", b"")
        start = part_of(encoded, 0, _HEADER)
        return start + image + padding + tf.strings.substr(encoded, _HEADER, 2**30)

    start = _start(encoded)
    flags = tf.io.decode_raw(tf.strings.substr(start, 20, 1), tf.uint8)[0]
    moves = (tf.strings.substr(start, _HEADER, 4) == b"VP8X") & (flags & 2 > 0)
    return tf.cond(moves, cut_out, lambda: encoded)


def _start(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes, followed by zeros if there are fewer than needed."""
    return tf.strings.substr(encoded, 0, 21) + b"\0" * 21


def _found(encoded: tf.Tensor, start: int | tf.Tensor, kinds: list[bytes]) -> tf.Tensor:
    """Returns the place of the first chunk of one of these kinds, int64, which must exist."""
    position, found = walk(
        encoded,
        start,
        _CHUNK_HEAD,
        lambda head: tf.reduce_any(tf.strings.substr(head, 0, 4) == kinds),
        riff_length,
        _MAX_CHUNKS,
    )
    message = "An animated WebP must hold a frame. Received the length of its file:"
    return checked(found, position, message, tf.strings.length(encoded))
