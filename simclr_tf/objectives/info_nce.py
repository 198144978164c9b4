"""InfoNCE against a queue of keys, the loss of MoCo (https://arxiv.org/abs/1911.05722, eq. 1).

Legend: B examples per replica, R replicas, G = B*R, K keys in the queue, P projection.
"""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.objectives.projections import check_temperature, gathered, normalized
from simclr_tf.objectives.view_metrics import view_metrics


@dataclasses.dataclass(frozen=True)
class InfoNCE:
    """Cross entropy of finding a query's own key among the keys of a queue.

    The loss returned is this replica's share: shares sum over replicas to the mean over all G
    queries, and so do their gradients.

    >>> loss = InfoNCE(temperature=0.5)
    >>> q = tf.constant([[1.0, 0.0]])
    >>> share, _ = loss(q, keys=q, queue=tf.constant([[0.0, 1.0], [0.0, -1.0]]))
    >>> print(f"{share:.4f}, at best {loss.floor(2):.4f}, by chance {loss.chance(2):.4f}")
    0.2395, at best 0.2395, by chance 1.0986

    Attributes:
        temperature: tau; 0.07 in MoCo v1, 0.2 in v2.

    Raises:
        InvalidArgument: If the temperature is not positive.
    """

    temperature: float = 0.2

    def __post_init__(self):
        check_temperature(self.temperature)

    def __call__(
        self, queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Only `queries` have a gradient. Memory holds some tensors of B * K numbers.

        Args:
            queries: [B, P] of any float dtype, normalized here.
            keys: [B, P] float32 of length 1, of the same images.
            queue: [K, P] float32 of length 1: the negatives.

        Returns:
            The share of the loss, float32 scalar, and float32 scalars named by
            `view_metrics.METRICS`, for which queries and keys are the two views.
        """
        queries, keys, queue = normalized(queries), tf.stop_gradient(keys), tf.stop_gradient(queue)
        positive = tf.reduce_sum(queries * keys, axis=1)
        negatives = tf.matmul(queries, queue, transpose_b=True)
        others = tf.reduce_logsumexp(negatives / self.temperature, axis=1)
        losses = tf.math.softplus(others - positive / self.temperature)
        rank = tf.reduce_sum(tf.cast(negatives >= positive[:, tf.newaxis], tf.int32), axis=1)
        found = {f"top{k}": tf.reduce_sum(tf.cast(rank < k, tf.float32)) for k in (1, 5)}
        unit = tf.stop_gradient(tf.concat([queries, keys], axis=0))
        # These count two anchors for each example, and there is one query.
        metrics = view_metrics(
            unit,
            gathered(unit),
            top1=2.0 * found["top1"],
            top5=2.0 * found["top5"],
            negative=2.0 * tf.stop_gradient(tf.reduce_sum(tf.reduce_mean(negatives, axis=1))),
        )
        rows = queries.shape[0] * collectives.num_replicas()
        return tf.reduce_sum(losses) / rows, metrics

    def chance(self, queue: int) -> float:
        """Returns the loss of equal embeddings, with so many keys in the queue."""
        return math.log(1 + queue)

    def floor(self, queue: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles."""
        return math.log1p(queue * math.exp(-1.0 / self.temperature))


@gin.configurable
def info_nce(temperature: float = 0.2) -> InfoNCE:
    """Returns the loss of MoCo; see `InfoNCE` for the argument."""
    return InfoNCE(temperature)
