"""Numbers that every loss of two views' projections reports.

Legend: B examples per replica, G examples on all replicas, P projection.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.metrics import Metric
from simclr_tf.objectives.projections import spread

# "contrastive_top1", "contrastive_top5": share of anchors whose positive is the most similar, or
# among the five most similar, of it and the negatives; ties count against it.
# "positive_cosine": mean cosine of the 2G positive pairs. "negative_cosine": mean over anchors of
# the mean cosine to their negatives.
# "embedding_std": standard deviation per dimension of the normalized projections over the global
# batch, times sqrt(P); 1 when spread over the sphere, 0 when collapsed to a point.
# "effective_rank": number of the P directions that the normalized projections use, see
# `effective_rank`.
METRICS = (
    Metric("contrastive_top1", "contrastive top-1"),
    Metric("contrastive_top5"),
    Metric("positive_cosine"),
    Metric("negative_cosine"),
    Metric("embedding_std", "embedding spread (1: whole sphere)"),
    Metric("effective_rank", "effective rank of projections"),
)


def view_metrics(
    unit: tf.Tensor, everyone: tf.Tensor, *, top1: tf.Tensor, top5: tf.Tensor, negative: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Computes this replica's shares of the `METRICS`, without a gradient.

    Args:
        unit: [2B, P] float32, normalized, view 1 of all local examples and then view 2.
        everyone: [2G, P], the same of all replicas.
        top1: number of local anchors whose positive is the most similar.
        top5: number of those whose positive is among the five most similar.
        negative: sum of the local anchors' mean cosines to their negatives.
    """
    unit, everyone = tf.stop_gradient(unit), tf.stop_gradient(everyone)
    anchors = everyone.shape[0]
    batch = unit.shape[0] // 2
    positives = 2.0 * tf.reduce_sum(unit[:batch] * unit[batch:])
    return {
        "contrastive_top1": top1 / anchors,
        "contrastive_top5": top5 / anchors,
        "positive_cosine": positives / anchors,
        "negative_cosine": negative / anchors,
        "embedding_std": spread(everyone) * (unit.shape[0] / anchors),
        "effective_rank": effective_rank(everyone) * (unit.shape[0] / anchors),
    }


def effective_rank(rows: tf.Tensor) -> tf.Tensor:
    """Computes tr(C)^2 / tr(C^2), C the second moments of rows [N, P]: 1 to P, 0 for all zeros.

    It equals (sum of C's eigenvalues)^2 / (sum of their squares), without computing eigenvalues: P
    if all are equal, k if k are equal and the others vanish (Gao et al., A theory of multineuronal
    dimensionality, dynamics and measurement, https://doi.org/10.1101/214262). The mean is not
    subtracted, so rows collapsed to a point give 1 regardless of rounding.
    """
    moments = tf.matmul(rows, rows, transpose_a=True)
    return tf.math.divide_no_nan(
        tf.square(tf.linalg.trace(moments)), tf.reduce_sum(tf.square(moments))
    )
