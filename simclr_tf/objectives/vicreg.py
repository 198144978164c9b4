"""The loss of VICReg (https://arxiv.org/abs/2105.04906, section 4), over the global batch.

Legend: B examples per replica, R replicas, G = B*R, P projection.
"""

from __future__ import annotations

import dataclasses

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.metrics import Metric
from simclr_tf.objectives.projections import gathered, two_views

# Added to variances, in the paper's eq. 2.
EPSILON = 1e-4
# "invariance", "variance", "covariance": the terms of the loss before their coefficients.
# "projection_std": standard deviation of the projections, mean over dimensions and views; the loss
# wants at least 1, and 0 is a collapse to a point.
# "effective_rank": number of the P directions that projections use, tr(C)^2 / tr(C^2) for the
# covariance C of a view, mean of both views: P if dimensions are uncorrelated and vary alike, 1 if
# all vary together, and at most G - 1.
METRICS = (
    Metric("invariance"),
    Metric("variance"),
    Metric("covariance"),
    Metric("projection_std", "standard deviation of projections (goal: 1)"),
    Metric("effective_rank", "effective rank of projections"),
)


@dataclasses.dataclass(frozen=True)
class VICRegLoss:
    """Variance, invariance and covariance of two views' projections, which are not normalized.

    The terms are scaled as in the authors' code: the variance term is a mean over both views, where
    the paper has the sum, and the covariance term is a sum over both. Variance and covariance are
    those of the global batch, and the loss is this replica's share, as for `NTXent`.

    Every replica gathers the projections. The covariance matrix, [P, P], is not built: the sum of
    its squares is that of the products of all pairs of centred projections, [G, G], and a replica
    computes the rows of its own examples. Summing covariance matrices over replicas instead would
    move P^2 numbers for each view, not G * P: at P = 8192 and G = 2048, 256 MiB and not 64.

    >>> loss = VICRegLoss()
    >>> z = tf.constant([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    >>> share, metrics = loss(tf.concat([z, z], axis=0))  # equal views, spread and uncorrelated
    >>> print(f"{share:.4f}, collapsed {loss.chance():.4f}")
    0.0000, collapsed 24.7500

    Attributes:
        invariance: Coefficient of the distance between views; 25, 25 and 1 in the paper.
        variance: Coefficient of what standard deviations lack of 1.
        covariance: Coefficient of the squared covariances of different dimensions.

    Raises:
        InvalidArgument: If a coefficient is negative.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self):
        if min(self.invariance, self.variance, self.covariance) < 0:
            raise InvalidArgument(
                "The coefficients of VICReg must be 0 or positive. Received: "
                f"invariance={self.invariance}, variance={self.variance}, "
                f"covariance={self.covariance}. The paper's are 25, 25 and 1."
            )

    def __call__(self, z: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss, and of the `METRICS`.

        Memory holds some tensors of 2G * P numbers.

        Args:
            z: [2B, P] projections of any float dtype, view 1 of all local examples, then view 2.

        Raises:
            ValueError: If the shape is not [2B, P] and static, or the global batch is one.
        """
        own = tf.reshape(two_views(z, normalize=False), [2, z.shape[0] // 2, -1])
        everyone = tf.reshape(gathered(tf.reshape(own, z.shape)), [2, -1, z.shape[1]])
        batch, rows, dim = own.shape[1], everyone.shape[1], everyone.shape[2]
        share = batch / rows
        mean = tf.reduce_mean(everyone, axis=1, keepdims=True)
        centred = everyone - mean
        variances = tf.reduce_sum(tf.square(centred), axis=1) / (rows - 1)
        products = tf.matmul(own - mean, centred, transpose_b=True) / (rows - 1)
        squares = tf.reduce_sum(tf.square(products), axis=[1, 2])
        deviations = tf.sqrt(variances + EPSILON)
        terms = {
            "invariance": tf.reduce_sum(tf.square(own[0] - own[1])) / (rows * dim),
            "variance": share * tf.reduce_mean(tf.nn.relu(1.0 - deviations)),
            "covariance": tf.reduce_sum(squares - share * _sum_of_squares(variances)) / dim,
        }
        loss = sum(getattr(self, name) * term for name, term in terms.items())
        total = tf.square(tf.reduce_sum(variances, axis=1))
        rank = tf.math.divide_no_nan(total, collectives.all_reduce_sum(tf.stop_gradient(squares)))
        return loss, {
            **terms,
            "projection_std": share * tf.reduce_mean(tf.sqrt(variances)),
            "effective_rank": share * tf.reduce_mean(rank),
        }

    def chance(self) -> float:
        """Returns the loss of equal projections: 24.75 with the paper's coefficients."""
        return self.variance * (1.0 - EPSILON**0.5)

    def floor(self, global_batch: int, dim: int) -> float:
        """Returns the loss for equal views whose dimensions vary by 1 and are as little correlated
        as projections [G, P] can be: not at all, if there are more examples than dimensions.

        A covariance matrix of rank G - 1 and trace P has squares of at least P^2 / (G - 1).

        Args:
            global_batch: G.
            dim: P.
        """
        return self.covariance * 2.0 * max(0.0, dim / (global_batch - 1) - 1.0)

    def words(self) -> str:
        """Describes the loss for the plan of a run."""
        return (
            f"VICReg, {self.invariance:g} invariance + {self.variance:g} variance + "
            f"{self.covariance:g} covariance"
        )


def _sum_of_squares(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(x), axis=1)


@gin.configurable
def vicreg_loss(
    invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> VICRegLoss:
    """Returns the loss of VICReg; see `VICRegLoss` for the arguments."""
    return VICRegLoss(invariance, variance, covariance)
