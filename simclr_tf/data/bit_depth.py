"""Pictures whose 16-bit levels use fewer bits, such as the 12 of medical scanners.

Of 16 bits, decoding keeps the upper 8, which leaves of 12 bits 4, and of 8 none. `stretched` moves
the bits in use to the top first.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data.byte_ops import numbers

FULL_DEPTH = 16
_PNG = b"\x89PNG\r\n\x1a\n"


def stretched(encoded: tf.Tensor, bits: int) -> tf.Tensor:
    """Returns a PNG of 16 bits with 2^bits - 1 as white, of 8 bits; other images unchanged.

    Args:
      encoded: string scalar.
      bits: bits in use, from 8 to 16; brighter levels become white.
    """

    def stretch() -> tf.Tensor:
        levels = tf.image.decode_png(encoded, channels=3, dtype=tf.uint16)
        return tf.image.encode_png(to_bytes(levels, bits))

    return tf.cond(is_deep(encoded), stretch, lambda: encoded)


def to_bytes(levels: tf.Tensor, bits: int = FULL_DEPTH) -> tf.Tensor:
    """Returns the upper 8 of the bits in use, uint8, of levels of uint16."""
    upper = tf.bitwise.right_shift(levels, tf.constant(bits - 8, tf.uint16))
    return tf.cast(tf.minimum(tf.cast(upper, tf.int32), 255), tf.uint8)


def is_deep(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether an image is a PNG of 16 bits."""
    start = tf.strings.substr(encoded, 0, tf.minimum(tf.strings.length(encoded), 25))
    padded = tf.strings.join([start, b"\0" * 25])
    return (tf.strings.substr(padded, 0, 8) == _PNG) & (numbers(padded, 24, 1, tf.uint8)[0] == 16)
