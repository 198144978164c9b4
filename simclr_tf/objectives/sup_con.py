"""SupCon, the contrastive loss with labels (https://arxiv.org/abs/2004.11362, eq. 2).

Legend: B examples per replica, R replicas, G = B*R, P projection.
"""

from __future__ import annotations

import dataclasses

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.metrics import Metric
from simclr_tf.objectives.projections import (
    check_temperature,
    gathered,
    own_columns,
    spread,
    two_views,
)

# "supcon_top1": share of anchors whose most similar other view is of their class.
# "positive_cosine", "negative_cosine": mean over anchors of the mean similarity to the views of
# their class, and of other classes.
# "embedding_std": standard deviation per dimension of the normalized projections over the global
# batch, times sqrt(P); 1 when spread over the sphere, 0 when collapsed to a point.
METRICS = (
    Metric("supcon_top1", "nearest view of the same class"),
    Metric("positive_cosine"),
    Metric("negative_cosine"),
    Metric("embedding_std", "embedding spread (1: whole sphere)"),
)
_MASKED = 1e9


@dataclasses.dataclass(frozen=True)
class SupCon:
    """Supervised contrastive loss: every view of the same class is a positive.

    The mean over an anchor's positives stands outside the logarithm (L_out). The factor
    temperature / 0.07 of the authors' code is left out, so without labels it is NT-Xent.

    >>> loss = SupCon(temperature=0.5)
    >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two pairs of views
    >>> share, _ = loss(z, labels=tf.constant([0, 1]), images=tf.constant([0, 1]))
    >>> print(f"{share:.4f}")
    0.2395

    Attributes:
        temperature: tau; 0.1 in the paper.

    Raises:
        InvalidArgument: If the temperature is not positive.
    """

    temperature: float = 0.1

    def __post_init__(self):
        check_temperature(self.temperature)

    @property
    def softmax_temperature(self) -> float:
        return self.temperature

    def __call__(
        self, z: tf.Tensor, labels: tf.Tensor, images: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics: shares sum over replicas.

        Memory holds several tensors of 2B * 2G numbers.

        Args:
            z: [2B, P] projections of any float dtype, view 1 of all local examples, then view 2.
            labels: [B] int32, -1 where unknown: such an image is a class of its own.
            images: [B] int32, the number of each local example's image, from 0 on.

        Returns:
            The share of the loss, float32 scalar, and float32 scalars named by `METRICS`.

        Raises:
            ValueError: If the shape is not [2B, P] or the global batch is one.
        """
        z = two_views(z)
        everyone = gathered(z)
        anchors = everyone.shape[0]

        classes = tf.where(labels >= 0, labels, -1 - images)
        itself = tf.one_hot(tf.concat(own_columns(z.shape[0] // 2), axis=0), anchors)
        every_class = tf.tile(collectives.gather_numbers(classes), [2])
        same = tf.cast(tf.tile(classes, [2])[:, tf.newaxis] == every_class, tf.float32)
        positive, negative = same - itself, 1.0 - same

        cosines = tf.matmul(z, everyone, transpose_b=True)
        logits = cosines / self.temperature - _MASKED * itself
        alike = _mean(cosines, positive)
        losses = tf.reduce_logsumexp(logits, axis=1) - alike / self.temperature
        nearest = tf.argmax(logits, axis=1, output_type=tf.int32)
        metrics = {
            "supcon_top1": tf.reduce_sum(tf.gather(positive, nearest, axis=1, batch_dims=1)),
            "positive_cosine": tf.reduce_sum(alike),
            "negative_cosine": tf.reduce_sum(_mean(cosines, negative)),
            "embedding_std": spread(everyone) * z.shape[0],
        }
        shares = {name: tf.stop_gradient(value) / anchors for name, value in metrics.items()}
        return tf.reduce_sum(losses) / anchors, shares


@gin.configurable
def sup_con(temperature: float = 0.1) -> SupCon:
    """Returns the loss of SupCon; see `SupCon` for the argument."""
    return SupCon(temperature)


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns each row's mean where the mask is 1; 0 where it nowhere is."""
    return tf.math.divide_no_nan(tf.reduce_sum(values * mask, axis=1), tf.reduce_sum(mask, axis=1))
