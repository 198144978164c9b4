"""Stateless randomness: every random number is a function of (run seed, epoch, index, view, op).

An example's key is one Threefry evaluation of its identity; a draw is another one, with the
example's key and a separate counter. Nothing is stored between calls, so augmentations do not
depend on resuming, on how batches are composed, or on the number of replicas.

Shapes: N examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
# Counters of `normal` start here, those of `uniform` at 0, so that an op may use both.
_FIRST_NORMAL_BLOCK = 2**31


def _words(values: tf.Tensor | np.ndarray | int) -> tf.Tensor:
    if not tf.is_tensor(values):
        values = tf.convert_to_tensor(values, tf.int64)
    return tf.cast(values, tf.uint32)


def _rotate_left(x: tf.Tensor, bits: int) -> tf.Tensor:
    left = tf.bitwise.left_shift(x, tf.constant(bits, tf.uint32))
    right = tf.bitwise.right_shift(x, tf.constant(32 - bits, tf.uint32))
    return tf.bitwise.bitwise_or(left, right)


def threefry2x32(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes Threefry-2x32 with 20 rounds, elementwise.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Args:
        key: two integer tensors, taken modulo 2**32; all four inputs broadcast.
        counter: two integer tensors, taken modulo 2**32.

    Returns:
        Two uint32 tensors of the broadcast shape.
    """
    k0, k1 = (_words(k) for k in key)
    x0, x1 = (_words(c) for c in counter)
    k2 = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(k0, k1), tf.constant(_PARITY, tf.uint32))
    schedule = (k0, k1, k2)
    x0, x1 = x0 + k0, x1 + k1
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = tf.bitwise.bitwise_xor(_rotate_left(x1, bits), x0)
        injection = group + 1
        x0 = x0 + schedule[injection % 3]
        x1 = x1 + (schedule[(injection + 1) % 3] + tf.constant(injection, tf.uint32))
    return x0, x1


def example_keys(
    seed: tf.Tensor | int, epoch: tf.Tensor | int, index: tf.Tensor, view: tf.Tensor | int
) -> tf.Tensor:
    """Returns keys of examples: distinct (index, view) of one (seed, epoch) get distinct keys.

    Args:
        seed: the run's seed, an integer; only its low 32 bits are used.
        epoch: integer.
        index: [...] positions of the examples in the data set, integers below 2**32.
        view: integer, 0 for the first view.

    Returns:
        [..., 2] uint32.
    """
    return tf.stack(threefry2x32((seed, epoch), (index, view)), axis=-1)


def _draw(keys: tf.Tensor, op: int, num: int, first_block: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws two words for each of ceil(num / 2) counters: uint32 [N, ceil(num / 2)] each."""
    blocks = tf.constant(first_block + np.arange((num + 1) // 2, dtype=np.int64), tf.uint32)
    return threefry2x32((keys[:, :1], keys[:, 1:]), (op, blocks))


def _unit(words: tf.Tensor) -> tf.Tensor:
    """Returns the high 24 bits of each word as a float32 in [0, 1), exactly."""
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _interleave(first: tf.Tensor, second: tf.Tensor, num: int) -> tf.Tensor:
    pairs = tf.stack([first, second], axis=-1)
    return tf.reshape(pairs, [-1, 2 * first.shape[1]])[:, :num]


def uniform(
    keys: tf.Tensor, op: int, num: int, minval: float = 0.0, maxval: float = 1.0
) -> tf.Tensor:
    """Draws independent uniform numbers in [minval, maxval).

    The first numbers do not depend on `num`. An op calls this once, for all numbers that it needs.

    Args:
        keys: uint32 [N, 2].
        op: id of the op that draws: ops with different ids draw independently.
        num: numbers for each example.
        minval: lower end, included.
        maxval: upper end, excluded.

    Returns:
        float32 [N, num].
    """
    unit = _interleave(*map(_unit, _draw(keys, op, num, 0)), num)
    if (minval, maxval) == (0.0, 1.0):
        return unit
    below_maxval = float(np.nextafter(np.float32(maxval), np.float32(minval)))
    return tf.minimum(minval + unit * (maxval - minval), below_maxval)


def normal(keys: tf.Tensor, op: int, num: int) -> tf.Tensor:
    """Draws independent standard normal numbers (Box-Muller), independent of the op's `uniform`.

    Args:
        keys: uint32 [N, 2].
        op: id of the op that draws.
        num: numbers for each example.

    Returns:
        float32 [N, num].
    """
    first, second = map(_unit, _draw(keys, op, num, _FIRST_NORMAL_BLOCK))
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - first))
    angle = 2.0 * math.pi * second
    return _interleave(radius * tf.cos(angle), radius * tf.sin(angle), num)


def below(keys: tf.Tensor, op: int, num: int, limit: int) -> tf.Tensor:
    """Draws independent uniform integers from 0 to limit - 1, by 32 bits each.

    `integers` makes them of the 24 bits of `uniform`, too few for a limit in the millions.

    Args:
        keys: uint32 [N, 2].
        op: id of the op that draws; it shares its bits with `uniform`.
        num: numbers for each example.
        limit: from 1 to 2^31 - 1.

    Returns:
        int32 [N, num].
    """
    words = _interleave(*_draw(keys, op, num, 0), num)
    return tf.cast(tf.math.floormod(words, tf.constant(limit, tf.uint32)), tf.int32)


def integers(draws: tf.Tensor, limit: tf.Tensor | int) -> tf.Tensor:
    """Maps uniform numbers in [0, 1) to uniform integers in [0, limit); to 0 where limit is 0.

    Args:
        draws: float32, any shape.
        limit: non-negative integer or int32 tensor that broadcasts with `draws`.

    Returns:
        int32 of the broadcast shape.
    """
    limit = tf.convert_to_tensor(limit, tf.int32)
    drawn = tf.cast(draws * tf.cast(limit, tf.float32), tf.int32)
    return tf.minimum(drawn, tf.maximum(limit - 1, 0))


def choose(drawn: tf.Tensor, changed: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Returns `changed` for the examples that are drawn, `images` for the others.

    Use it for a change so cheap that XLA fuses it with the ops around it: on a CPU a branch, which
    is another pass over the image, takes longer (a flip at 224 px: 0.09 ms, against 0.01 here).

    Args:
        drawn: bool [N].
        changed: a tensor that broadcasts to [N, H, W, C].
        images: [N, H, W, C].

    Returns:
        [N, H, W, C].
    """
    return tf.where(drawn[:, None, None, None], changed, images)


def apply_to_drawn(
    draws: tf.Tensor,
    probability: float,
    change: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
) -> tf.Tensor:
    """Applies `change` to the examples whose draw is below `probability`.

    For a batch with a static size of one, `change` is computed only if the example is drawn.

    Args:
        draws: float32 [N], uniform in [0, 1).
        probability: in [0, 1]; 0 changes no example, 1 every example.
        change: [N, H, W, C] -> a tensor that broadcasts to [N, H, W, C].
        images: [N, H, W, C].

    Returns:
        [N, H, W, C].
    """
    drawn = draws < probability
    if images.shape[0] != 1:
        return choose(drawn, change(images), images)
    # Tensors enter and leave the branch with channels first, as the expensive ops take them.
    # Otherwise XLA transposes images for both branches, whichever is taken.
    planes = tf.transpose(images, [0, 3, 1, 2])

    def changed() -> tf.Tensor:
        result = tf.broadcast_to(change(tf.transpose(planes, [0, 2, 3, 1])), tf.shape(images))
        return tf.transpose(result, [0, 3, 1, 2])

    planes = tf.cond(drawn[0], changed, lambda: planes)
    return tf.transpose(planes, [0, 2, 3, 1])
