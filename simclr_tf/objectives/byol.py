"""The loss of BYOL (https://arxiv.org/abs/2006.07733, eq. 2), in both directions.

Legend: B examples per replica, R replicas, G = B*R, P projection.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.metrics import Metric
from simclr_tf.objectives.projections import gathered, normalized, spread
from simclr_tf.objectives.view_metrics import effective_rank

# Predictions at right angles to their targets, and equal ones; opposite ones give 8.
CHANCE, FLOOR = 4.0, 0.0
# "embedding_std": standard deviation per dimension of the normalized projections over the global
# batch, times sqrt(P); 1 when spread over the sphere, 0 when collapsed to a point.
# "effective_rank": number of the P directions that the normalized projections use.
METRICS = (
    Metric("embedding_std", "embedding spread (1: whole sphere)"),
    Metric("effective_rank", "effective rank of projections"),
)


def byol_loss(
    predictions: tf.Tensor, targets: tf.Tensor, projections: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Sums the squared distances of normalized predictions to the other view's targets.

    A distance is 2 - 2 cos. Both directions are summed, not averaged, and examples are averaged
    over the global batch. The loss returned is this replica's share, as for `NTXent`.

    Args:
        predictions: [2B, P] of any float dtype, view 1 of all local examples, then view 2.
        targets: [2B, P], the target network's projections, in the same order; without gradient.
        projections: [2B, P], of which the predictions are made, for the `METRICS` alone.

    Returns:
        The share of the loss, float32 scalar, and the shares of the `METRICS`.
    """
    first, second = tf.split(normalized(tf.stop_gradient(targets)), 2)
    cosines = tf.reduce_sum(normalized(predictions) * tf.concat([second, first], axis=0), axis=1)
    everyone = gathered(normalized(tf.stop_gradient(projections)))
    share = 1.0 / collectives.num_replicas()
    rows = everyone.shape[0] // 2
    return tf.reduce_sum(2.0 - 2.0 * cosines) / rows, {
        "embedding_std": share * spread(everyone),
        "effective_rank": share * effective_rank(everyone),
    }
