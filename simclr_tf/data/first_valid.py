"""Decodes a block of examples, and replaces damaged ones by others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

# A larger block saves little time and costs memory.
LARGEST_BLOCK = 8
# Other images to try in place of one that does not decode.
SUBSTITUTES = 7


class Block(NamedTuple):
    """K examples that are loaded together.

    Attributes:
      epoch: the epoch of each, int64 [K].
      stored: the content read: encoded images, or records that hold them, string [K].
      labels: int64 [K], -1 where unknown or not known until a record is parsed.
      asked: the numbers of the requested images, int64 [K].
      other: (n, attempt from 1 on) -> stored, label and number of another image for place n.
    """

    epoch: tf.Tensor
    stored: tf.Tensor
    labels: tf.Tensor
    asked: tf.Tensor
    other: Callable


def block_size(per_replica: int) -> int:
    """Returns the largest divisor of a batch up to `LARGEST_BLOCK`."""
    return max(n for n in range(1, LARGEST_BLOCK + 1) if per_replica % n == 0)


def first_that_decode(
    stored: tuple[tf.Tensor, ...],
    other: Callable,
    decode: Callable,
    blank: Callable,
    *,
    attempts: int,
    failed: Callable,
    finish: Callable = lambda *decoded: decoded,
) -> tuple:
    """Decodes each example of a block, or the first of its substitutes that decodes.

    Only errors of `decode` are caught. Errors of reading and of `finish` reach the caller that
    reads the batches.

    Only a dataset can continue after an error. Starting one takes 0.4 to 0.7 ms, since it
    instantiates its functions; decoding a photo takes 2 to 4. So a block uses one dataset for all
    first attempts. If one of them fails, the block is decoded again, with a dataset per example.

    Args:
      stored: the content read for each of the K examples, [K, ...] each.
      other: (n, attempt from 1 on) -> the content to use in place of the n-th example.
      decode: (n, *stored) -> the decoded parts; it raises if the content is damaged.
      blank: n -> parts like those of `finish`, the last of them the number -1 (else 0 or more).
      attempts: the examples tried for each place, the first included.
      failed: (numbers int64 [K], -1 where no attempt decoded) -> the same numbers. It is called if
        a place holds another example than `stored` or none, and may raise.
      finish: the decoded parts -> the result.

    Returns:
      The results of `finish`, batched: [K, ...] each.
    """
    size = stored[-1].shape[0] or tf.size(stored[-1], tf.int64)
    places = tf.data.Dataset.range(size)

    def first(n: tf.Tensor) -> tuple:
        return tuple(part[n] for part in stored)

    def rows(decoded: tf.data.Dataset) -> tuple:
        return decoded.take(size).batch(size, drop_remainder=True).get_single_element()

    def by_itself(n: tf.Tensor) -> tf.data.Dataset:
        def attempt(*example: Any) -> tf.data.Dataset:
            return (
                tf.data.Dataset.from_tensors(example).map(lambda *e: decode(n, *e)).ignore_errors()
            )

        tried = tf.data.Dataset.from_tensors(first(n))
        if attempts > 1:
            others = tf.data.Dataset.range(1, attempts).map(lambda k: other(n, k))
            tried = tried.concatenate(others)
        none = tf.data.Dataset.from_tensors(n).map(blank)
        return tried.flat_map(attempt).map(finish).concatenate(none).take(1)

    def again() -> tuple:
        found = rows(places.flat_map(by_itself))
        return *found[:-1], tf.ensure_shape(failed(found[-1]), found[-1].shape)

    at_first = places.map(lambda n: decode(n, *first(n))).ignore_errors().map(finish)
    found = rows(at_first.concatenate(places.map(blank)))
    return tf.cond(found[-1][-1] < 0, again, lambda: found)
