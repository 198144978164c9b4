"""NT-Logistic, a loss that the SimCLR paper compares with NT-Xent (tables 2 and 4).

Legend: B examples per replica, G examples on all replicas, P projection.
"""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from simclr_tf.objectives.pairs import pairs_of, words_of_negatives
from simclr_tf.objectives.projections import check_temperature


@dataclasses.dataclass(frozen=True)
class NTLogistic:
    """Logistic loss of single pairs: whether two views are of one image.

    For an anchor u, its positive v+ and each of its negatives v-, the loss is
    -log sigmoid(u.v+ / temperature) - log sigmoid(-u.v- / temperature), averaged over negatives and
    anchors. So the positive counts as much as all negatives. It is this replica's share, as of
    `NTXent`.

    >>> loss = NTLogistic(temperature=0.5)
    >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two pairs of views
    >>> share, metrics = loss(z)
    >>> print(f"{share:.4f}, at best {loss.floor(2):.4f}, by chance {loss.chance(2):.4f}")
    0.8201, at best 0.8201, by chance 1.3863

    Attributes:
        temperature: tau; the paper tries 0.1, 0.2, 0.5 and 1 (appendix B.10).
        normalize: Whether the similarity is the cosine, else the product.
        semi_hard: Whether an anchor has its semi-hard negative alone; see `Pairs.over_negatives`.

    Raises:
        InvalidArgument: If the temperature is not positive.
    """

    temperature: float = 0.1
    normalize: bool = True
    semi_hard: bool = False

    # Many easy negatives hide how the few near ones move.
    tells_learning = False
    softmax_temperature = None

    def __post_init__(self):
        check_temperature(self.temperature)

    def __call__(
        self, z: tf.Tensor, images: tf.Tensor | None = None, small: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics; see `base.ViewLoss`."""
        pairs, metrics = pairs_of(z, images, small, self.normalize)
        alike = tf.math.softplus(-pairs.positive[..., 0] / self.temperature)
        different = pairs.over_negatives(
            lambda similarity: tf.math.softplus(similarity / self.temperature), self.semi_hard
        )
        return pairs.share(alike + different), metrics

    def chance(self, global_batch: int) -> float:
        """Returns 2 log 2, the least for a similarity that is the same for all pairs."""
        del global_batch
        return 2 * math.log(2)

    def floor(self, global_batch: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles.

        log(1 + e^(-1 / temperature)) + log 2; 0 for projections of any length.
        """
        del global_batch
        if not self.normalize:
            return 0.0
        return math.log1p(math.exp(-1 / self.temperature)) + math.log(2)

    def words(self, global_batch: int) -> str:
        negatives = words_of_negatives(global_batch, self.semi_hard, self.normalize)
        return f"NT-Logistic, temperature {self.temperature:g}, {negatives}"


@gin.configurable
def nt_logistic(
    temperature: float = 0.1, normalize: bool = True, semi_hard: bool = False
) -> NTLogistic:
    """Returns the logistic loss of pairs; see `NTLogistic` for the arguments."""
    return NTLogistic(temperature, normalize, semi_hard)
