"""The loss of DINO (https://arxiv.org/abs/2104.14294, eq. 3), with small views.

Legend: B examples per replica, R replicas, G = B*R, V views, K prototypes.
"""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.metrics import Metric
from simclr_tf.objectives.projections import check_temperature

# "teacher_entropy": mean entropy of the teacher's distribution for a view; ln K if it is uniform.
# "teacher_divergence": mean KL divergence of the student's from the teacher's, of other views: the
# loss without the entropy. "prototypes_used": exp of the entropy of the teacher's mean over the
# global batch; 1 if one prototype has all images, K if all have the same share.
METRICS = (
    Metric("teacher_entropy", "entropy of the teacher"),
    Metric("teacher_divergence", "KL of teacher and student"),
    Metric("prototypes_used", "prototypes that the teacher uses"),
)


@dataclasses.dataclass(frozen=True)
class DINOLoss:
    """Cross-entropy of the student's distribution with the teacher's of another view.

    The loss returned is this replica's share: shares sum over replicas to the mean over the 2(V-1)
    pairs and all G examples, and so do their gradients.

    >>> loss = DINOLoss(temperature=0.5)
    >>> s = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    >>> share, _ = loss(s, s, centre=tf.zeros([2]), teacher_temperature=0.25)
    >>> print(f"{share:.4f}, by chance {loss.chance(2):.4f}")
    0.1629, by chance 0.6931

    Attributes:
        temperature: That of the student, 0.1 in the paper.

    Raises:
        InvalidArgument: If the temperature is not positive.
    """

    temperature: float = 0.1

    def __post_init__(self):
        check_temperature(self.temperature)

    def __call__(
        self,
        student: tf.Tensor,
        teacher: tf.Tensor,
        centre: tf.Tensor,
        teacher_temperature: float | tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Args:
            student: [V*B, K] float32, view after view, the two that the teacher sees first.
            teacher: [2B, K] float32, of the first two views; without gradient.
            centre: [K] float32, which is taken from the teacher's.
            teacher_temperature: Scalar; below the student's, it sharpens.

        Returns:
            The share of the loss, float32 scalar, and the shares of the `METRICS`.
        """
        dim = student.shape[1]
        logits = tf.stop_gradient((teacher - centre) / teacher_temperature)
        batch = logits.shape[0] // 2
        views = student.shape[0] // batch
        target = tf.reshape(tf.nn.softmax(logits), [2, batch, dim])
        guess = tf.reshape(tf.nn.log_softmax(student / self.temperature), [views, batch, dim])
        # All pairs, without those of a view with itself.
        pairs = tf.reduce_sum(tf.reduce_sum(target, axis=0) * tf.reduce_sum(guess, axis=0))
        same = tf.reduce_sum(target * guess[:2])
        examples = batch * collectives.num_replicas()
        share = (same - pairs) / (2 * (views - 1) * examples)
        own = tf.reshape(tf.nn.log_softmax(logits), target.shape)
        entropy = -tf.reduce_sum(target * own) / (2 * examples)
        return share, {
            "teacher_entropy": entropy,
            "teacher_divergence": tf.stop_gradient(share) - entropy,
            "prototypes_used": _used(target) / collectives.num_replicas(),
        }

    def chance(self, count: int) -> float:
        """Returns the loss of a student that gives all K prototypes the same probability."""
        return math.log(count)


@gin.configurable
def dino_loss(temperature: float = 0.1) -> DINOLoss:
    """Returns the loss of DINO; see `DINOLoss` for the argument."""
    return DINOLoss(temperature)


def _used(target: tf.Tensor) -> tf.Tensor:
    """Returns exp of the entropy of the mean distribution of [2, B, K] on all replicas."""
    mean = collectives.all_reduce_mean(tf.reduce_mean(target, axis=[0, 1]))
    return tf.exp(-tf.reduce_sum(tf.math.xlogy(mean, mean)))
