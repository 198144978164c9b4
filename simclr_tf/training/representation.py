"""Spread of the representations of different images: shows whether the encoder is alive."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.metrics import Metric

REPRESENTATION_METRICS = (Metric("representation_spread"),)


def direction_sums(representation: tf.Tensor) -> tf.Tensor:
    """Sums h / ||h|| over rows h [N, D] and, last, its square (0 for h = 0): [D+1]."""
    unit = tf.math.l2_normalize(tf.stop_gradient(representation), axis=-1, epsilon=1e-12)
    squares = tf.reduce_sum(tf.square(unit))
    return tf.concat([tf.reduce_sum(unit, axis=0), squares[tf.newaxis]], axis=0)


def representation_numbers(sums: tf.Tensor, rows: int) -> dict[str, tf.Tensor]:
    """Returns this replica's shares of the `REPRESENTATION_METRICS`.

    "representation_spread" is the standard deviation of the directions h / ||h||, over the global
    batch and all dimensions together: 1 where they cancel out, 0 where all images have the same
    representation, or none at all.

    Args:
      sums: [D+1] by `direction_sums`, of this replica.
      rows: how many rows were summed.
    """
    replicas = collectives.num_replicas()
    means = collectives.all_reduce_sum(sums) / (rows * replicas)
    variance = means[-1] - tf.reduce_sum(tf.square(means[:-1]))
    return {"representation_spread": tf.sqrt(tf.maximum(variance, 0.0)) / replicas}
