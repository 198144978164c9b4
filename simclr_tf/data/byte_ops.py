"""Reads numbers and parts out of an encoded image by TensorFlow ops, never beyond its end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def traced_once(function: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
    """Traces a function of an encoded image once per process, for all graphs that call it.

    Its ops are many, and each data set uses them several times. Outside a graph they run one by one
    in the calling thread: inside `tf.numpy_function`, a graph would wait for a thread of the pool
    whose threads may all be waiting for such functions.
    """
    traced = tf.function(function, autograph=False, input_signature=[tf.TensorSpec([], tf.string)])

    @functools.wraps(function)
    def call(encoded: tf.Tensor) -> Any:
        encoded = tf.convert_to_tensor(encoded, tf.string)
        return function(encoded) if tf.executing_eagerly() else traced(encoded)

    return call


def numbers(
    encoded: tf.Tensor, position: int | tf.Tensor, count: int, dtype: tf.DType, little_endian=True
) -> tf.Tensor:
    """Reads `count` numbers from byte `position` on; raises if the file ends before."""
    part = part_of(encoded, position, count * dtype.size)
    return tf.ensure_shape(tf.io.decode_raw(part, dtype, little_endian=little_endian), [count])


def part_of(encoded: tf.Tensor, position: int | tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """Returns bytes that must exist; the error of `substr` itself would hold the whole file."""
    position = tf.convert_to_tensor(position)
    length = tf.cast(length, position.dtype)
    size = tf.cast(tf.strings.length(encoded), position.dtype)
    left = size - position
    there = (position >= 0) & (length >= 0) & (left >= length)
    message = "An image must hold what its header says. Received the length of its file:"
    return tf.strings.substr(checked(there, encoded, message, size), position, length)


def checked(holds: tf.Tensor, value: tf.Tensor, message: str, *received: tf.Tensor) -> tf.Tensor:
    """Returns `value` if the condition holds, else raises InvalidArgumentError."""
    # Without the branch that tf.debugging.Assert adds, which takes longer than the rest.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=holds, data=[message, *received])]):
        return tf.identity(value)


def contains(text: tf.Tensor, part: bytes) -> tf.Tensor:
    """Returns whether a string scalar holds `part`."""
    return tf.size(tf.raw_ops.StringSplitV2(input=text[tf.newaxis], sep=part).values) > 1


def walk(
    encoded: tf.Tensor,
    start: int | tf.Tensor,
    head_length: int,
    stops: Callable[[tf.Tensor], tf.Tensor],
    length: Callable[[tf.Tensor], tf.Tensor],
    most: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Walks over the pieces of a file; never fails.

    Args:
      encoded: the file, a string scalar.
      start: the place of the first piece.
      head_length: bytes at the beginning of a piece that the functions need.
      stops: the head, a string scalar of at least that length -> whether to stop at this piece.
      length: the head's bytes, int64 [head_length] -> the length of the piece, at least 1.
      most: pieces to look at.

    Returns:
      The place of the piece that stopped, int64, and whether one did.
    """
    size = tf.cast(tf.strings.length(encoded), tf.int64)

    def head(position: tf.Tensor) -> tf.Tensor:
        return tf.strings.substr(encoded, tf.minimum(position, size), head_length)

    def goes_on(position: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
        return (
            (position + head_length <= size)
            & (left > 0)
            & ~stops(head(position) + b"\0" * head_length)
        )

    def following(position: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers_of = tf.ensure_shape(tf.io.decode_raw(head(position), tf.uint8), [head_length])
        return position + tf.maximum(length(tf.cast(numbers_of, tf.int64)), 1), left - 1

    begin = (tf.cast(start, tf.int64), tf.constant(most))
    position, left = tf.while_loop(goes_on, following, begin)
    return position, (position + head_length <= size) & (left > 0)


def value_of(digits: tf.Tensor) -> tf.Tensor:
    """Returns the number that bytes mean, the most significant first, int64."""
    shifts = 8 * tf.range(tf.size(digits, tf.int64), dtype=tf.int64)[::-1]
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(digits, tf.int64), shifts))
