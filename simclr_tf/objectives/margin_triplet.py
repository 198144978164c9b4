"""The margin triplet loss, which the SimCLR paper compares with NT-Xent (tables 2 and 4).

Legend: B examples per replica, G examples on all replicas, P projection.
"""

from __future__ import annotations

import dataclasses

import gin
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.objectives.pairs import pairs_of, words_of_negatives


@dataclasses.dataclass(frozen=True)
class MarginTriplet:
    """Hinge loss of an anchor, its positive and a negative, by their similarities.

    For an anchor u, its positive v+ and each of its negatives v-, the loss is
    max(u.v- - u.v+ + margin, 0), averaged over negatives and anchors. It is this replica's share,
    as of `NTXent`.

    >>> loss = MarginTriplet(margin=1.6)
    >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two pairs of views
    >>> share, metrics = loss(z)
    >>> print(f"{share:.4f}, at best {loss.floor(2):.4f}, by chance {loss.chance(2):.4f}")
    0.6000, at best 0.6000, by chance 1.6000

    Attributes:
        margin: m; the paper tries 0, 0.4, 0.8 and 1.6 (appendix B.10).
        normalize: Whether the similarity is the cosine, else the product.
        semi_hard: Whether an anchor has its semi-hard negative alone; see `Pairs.over_negatives`.

    Raises:
        InvalidArgument: If the margin is negative.
    """

    margin: float = 0.8
    normalize: bool = True
    semi_hard: bool = False

    # Many easy negatives hide how the few near ones move.
    tells_learning = False
    softmax_temperature = None

    def __post_init__(self):
        if not self.margin >= 0:
            raise InvalidArgument(f"margin must be at least 0. Received: margin={self.margin}.")

    def __call__(
        self, z: tf.Tensor, images: tf.Tensor | None = None, small: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics; see `base.ViewLoss`."""
        pairs, metrics = pairs_of(z, images, small, self.normalize)
        losses = pairs.over_negatives(
            lambda similarity: tf.nn.relu(similarity - pairs.positive + self.margin),
            self.semi_hard,
        )
        return pairs.share(losses), metrics

    def chance(self, global_batch: int) -> float:
        """Returns the margin: the loss for a similarity that is the same for all pairs."""
        del global_batch
        return self.margin

    def floor(self, global_batch: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles.

        The part of the margin above 1; 0 for projections of any length.
        """
        del global_batch
        return max(self.margin - 1.0, 0.0) if self.normalize else 0.0

    def words(self, global_batch: int) -> str:
        negatives = words_of_negatives(global_batch, self.semi_hard, self.normalize)
        return f"margin triplet, margin {self.margin:g}, {negatives}"


@gin.configurable
def margin_triplet(
    margin: float = 0.8, normalize: bool = True, semi_hard: bool = False
) -> MarginTriplet:
    """Returns the triplet loss with a margin; see `MarginTriplet` for the arguments."""
    return MarginTriplet(margin, normalize, semi_hard)
