"""Colour dropping, by which patches of an image are no longer known by their colours."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment.ops import policy_op


@policy_op("color_drop", max_strength=None)
def color_drop(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Drops two of the three channels of drawn images; each one is equally likely to stay.

    As in CPC v2 (https://arxiv.org/abs/1905.09272), after Doersch et al.
    (https://arxiv.org/abs/1505.05192), who put noise of a hundredth of the deviation about the mean
    in the place of a channel; here it is 0.5 without noise.

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image loses two channels.
        strength: ignored; part of every policy op's signature.

    Returns:
        float32 [N, H, W, 3] in [0, 1].
    """
    del strength
    draws = keys_lib.uniform(keys, op, 2)
    kept = keys_lib.integers(draws[:, 1], 3)[:, None, None, None] == tf.range(3)
    return keys_lib.choose(draws[:, 0] < probability, tf.where(kept, images, 0.5), images)
