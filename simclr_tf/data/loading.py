"""Loading examples of which some may fail, a block of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def block_size(per_replica: int) -> int:
    """The largest divisor of a batch up to 8: more at a time saves little, and takes memory."""
    return max(n for n in range(1, 9) if per_replica % n == 0)


def first_that_load(load: Callable, nothing: Callable, size: int, attempts: int) -> tuple:
    """Of each example of a block the first attempt that raises no error.

    Only a dataset can go on after an error, and starting one takes 0.4 to 0.7 ms, where a photo
    takes 2 to 4, since it instantiates `load`. So a block has one for all its first attempts, and
    is loaded once more, with a dataset for each example, if one of them failed.

    Args:
      load: (n, attempt) -> what is found of the block's n-th example, whose last part is a number
        from 0 on.
      nothing: n -> the same parts, with the number -1, for an example that never loads.
      size: K, examples in the block.
      attempts: how many there are for each example.

    Returns:
      What `load` or `nothing` return, batched: [K, ...] each.
    """
    places = tf.data.Dataset.range(size)

    def rows(examples: tf.data.Dataset) -> tuple:
        batches = examples.take(size).batch(size, drop_remainder=True)
        return batches.get_single_element()

    def first(n: tf.Tensor) -> tf.data.Dataset:
        loaded = tf.data.Dataset.range(attempts).map(lambda attempt: load(n, attempt))
        last = tf.data.Dataset.from_tensors(n).map(nothing)
        return loaded.ignore_errors().concatenate(last).take(1)

    at_first = places.map(lambda n: load(n, tf.constant(0, tf.int64))).ignore_errors()
    found = rows(at_first.concatenate(places.map(nothing)))
    return tf.cond(found[-1][-1] < 0, lambda: rows(places.flat_map(first)), lambda: found)
