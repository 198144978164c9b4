"""Networks that follow trained ones by an exponential moving average of their weights.

BYOL calls them target networks (https://arxiv.org/abs/2006.07733, section 3.1), MoCo key encoders
(https://arxiv.org/abs/1911.05722, section 3.2), DINO teachers (https://arxiv.org/abs/2104.14294,
section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import keras
import tensorflow as tf

from simclr_tf.models.networks import Networks, copy_values


def followers_of(source: Networks, copy: Networks, prefix: str) -> Networks:
    """Returns networks that start with the values of others.

    Args:
        source: The networks to follow.
        copy: The same networks, or some of them, built again; their values are replaced.
        prefix: What the followers' names have before the names in `copy`, such as "target_".
    """
    copy_values(source, copy)
    return Networks({prefix + name: model for name, model in copy.items()})


def follow(followers: Networks, source: Networks, decay: float | tf.Tensor) -> None:
    """Moves followers towards the trained weights; part of the replica function.

    Batch normalization's moving statistics do not move: they are those of the images that the
    follower itself has seen.

    Args:
        followers: Networks of `followers_of`.
        source: The networks to follow, and perhaps others.
        decay: Share of its weights that a follower keeps, from 0 to 1: a float or a scalar.
    """
    weights = {v.path: v for v in source.trainable_variables}
    kept = followers.trainable_variables
    move_towards(kept, [weights[v.path] for v in kept], decay)


def rising_momentum(momentum: float, steps: tf.Tensor, total_steps: int) -> tf.Tensor:
    """Returns the share that a follower keeps in the update after some: float32 scalar.

    1 - (1 - tau) (cos(pi k / K) + 1) / 2 for k updates (BYOL, section 3.3).

    Args:
        momentum: tau, the share in the first update.
        steps: k, an integer scalar.
        total_steps: K, the updates until the share is 1.
    """
    way = tf.cast(steps, tf.float32) / total_steps
    return 1.0 - (1.0 - momentum) * (tf.cos(math.pi * way) + 1.0) / 2.0


def move_towards(
    averages: Iterable[keras.Variable], values: Iterable[keras.Variable], decay: float | tf.Tensor
) -> None:
    """Assigns decay * average + (1 - decay) * value to each average; part of the step."""
    for average, value in zip(averages, values, strict=True):
        average.assign(decay * average + (1.0 - decay) * value)
