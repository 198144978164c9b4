"""NT-Xent, the contrastive loss of SimCLR (eq. 1), over the global batch.

Legend: B examples per replica, R replicas, G = B*R, P projection.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.metrics import Metric
from simclr_tf.objectives.blockwise import Sums, contrast
from simclr_tf.objectives.projections import (
    check_temperature,
    gathered,
    normalized,
    own_columns,
    spread,
    two_views,
)

REDUCTIONS = ("paper", "reference")

# "contrastive_top1", "contrastive_top5": share of anchors whose positive is the most similar, or
# among the five most similar, of it and the negatives; ties count against it.
# "positive_cosine": mean similarity of the 2G positive pairs. "negative_cosine": mean over anchors
# of the mean similarity to their negatives.
# "embedding_std": standard deviation per dimension of the normalized projections over the global
# batch, times sqrt(P); 1 when spread over the sphere, 0 when collapsed to a point.
# "effective_rank": number of the P directions that the normalized projections use, see
# `_participation_ratio`.
METRICS = (
    Metric("contrastive_top1", "contrastive top-1"),
    Metric("contrastive_top5"),
    Metric("positive_cosine"),
    Metric("negative_cosine"),
    Metric("embedding_std", "embedding spread (1: whole sphere)"),
    Metric("effective_rank", "effective rank of projections"),
)


@dataclasses.dataclass(frozen=True)
class NTXent:
    """Normalized temperature-scaled cross entropy of this replica's anchors against all replicas.

    Each of the 2B local anchors picks its other view among the other 2G - 1 embeddings of all
    replicas. Where a batch holds an image several times, as one that spans two epochs of a small
    data set may, the image's other views are none of the anchor's negatives.

    The loss returned is this replica's *share*: the sum over its anchors divided by 2G. Shares sum
    over replicas to the mean over all 2G anchors. Their gradients, which Keras' optimizers sum over
    replicas, sum to the gradient of that mean, so the caller must not rescale them.

    >>> loss = NTXent(temperature=0.5)
    >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two pairs of views
    >>> share, metrics = loss(z)
    >>> print(f"{share:.4f}, at best {loss.floor(2):.4f}, by chance {loss.chance(2):.4f}")
    0.2395, at best 0.2395, by chance 1.0986

    Attributes:
        temperature: tau; 0.1 for ImageNet and 0.5 for CIFAR-10 in the paper.
        reduction: "paper" for the mean over anchors of eq. 1, "reference" for the loss of
            google-research/simclr, which is exactly twice that.
        block_size: local anchors compared with all embeddings at a time; None for as many as keep
            the block's similarities within 16 MiB (all of them, up to 2B * 2G = 2^22). It changes
            memory and time, and results only by rounding. Memory is linear in G.
        decoupled: whether the positive is left out of the denominator, which helps small batches
            (DCL; Yeh et al., https://arxiv.org/abs/2110.06848, eq. 6).

    Raises:
        InvalidArgument: If the temperature is not positive, the reduction is unknown or
            block_size is below 1.
    """

    temperature: float = 0.1
    reduction: Literal["paper", "reference"] = "paper"
    block_size: int | None = None
    decoupled: bool = False

    def __post_init__(self):
        check_temperature(self.temperature)
        if self.reduction not in REDUCTIONS:
            raise InvalidArgument(
                f"reduction must be a known one. Received: reduction={self.reduction!r}. "
                f"Valid: {', '.join(REDUCTIONS)}."
            )
        if self.block_size is not None and self.block_size < 1:
            raise InvalidArgument(
                f"block_size must be None or at least 1. Received: block_size={self.block_size}."
            )

    def __call__(
        self, z: tf.Tensor, images: tf.Tensor | None = None, small: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Args:
            z: [2B, P] projections of any float dtype, view 1 of all local examples, then view 2.
                The shape must be static and the same on all replicas. The rows are normalized here.
            images: [B] int32, the number of each local example's image, from 0 on. None if no image
                occurs twice in the global batch.
            small: [V*B, P] projections of V more views of each local example, view after view.
                Each picks both views of its image in z, one after the other, among z alone; the
                loss is the mean over all such pairs (multi-crop; Caron et al., SwAV, 2020,
                https://arxiv.org/abs/2006.09882, section 3.2). None for no more views.

        Returns:
            The share of the loss, float32 scalar, and float32 scalars named by `METRICS`. These
            are shares too: the sum over replicas is the global value.

        Raises:
            ValueError: If the shape is not [2B, P] or the global batch is one.
        """
        z = two_views(z)
        batch = z.shape[0] // 2
        global_batch = batch * collectives.num_replicas()
        everyone = gathered(z)
        view_1, view_2 = own_columns(batch)
        if images is None:
            image, every_image = view_1, tf.range(global_batch)
        else:
            image, every_image = images, collectives.gather_numbers(images)
        compare = functools.partial(
            contrast,
            candidates=everyone,
            candidate_image=tf.tile(every_image, [2]),
            temperature=self.temperature,
            block_size=self.block_size,
            decoupled=self.decoupled,
        )
        sums = compare(
            z,
            anchor_image=tf.tile(image, [2]),
            positive_column=tf.concat([view_2, view_1], axis=0),
        )
        total, pairs = sums.loss, 2 * global_batch
        if small is not None:
            views = small.shape[0] // batch
            total += compare(
                tf.tile(normalized(small), [2, 1]),
                anchor_image=tf.tile(image, [2 * views]),
                positive_column=tf.concat([view_1] * views + [view_2] * views, axis=0),
            ).loss
            pairs *= 1 + views
        loss = total / pairs
        if self.reduction == "reference":
            loss *= self._factor
        return loss, _metrics(tf.stop_gradient(z), tf.stop_gradient(everyone), sums)

    def chance(self, global_batch: int) -> float:
        """Returns the loss of equal embeddings.

        log(2G - 1), or log(2G - 2) if decoupled; twice that for "reference".
        """
        return self._factor * math.log(2 * global_batch - (2 if self.decoupled else 1))

    def floor(self, global_batch: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles.

        log(1 + (2G - 2) e^(-1 / temperature)), without the 1 if decoupled; twice that for
        "reference". Only negatives at obtuse angles lower it, and 2G - 2 vectors can exceed right
        angles to each other only minimally.
        """
        negatives = 2 * global_batch - 2
        if self.decoupled:
            return self._factor * (math.log(negatives) - 1.0 / self.temperature)
        return self._factor * math.log1p(negatives * math.exp(-1.0 / self.temperature))

    @property
    def _factor(self) -> float:
        return 2.0 if self.reduction == "reference" else 1.0


@gin.configurable
def nt_xent(
    temperature: float = 0.1,
    reduction: Literal["paper", "reference"] = "paper",
    block_size: int | None = None,
    decoupled: bool = False,
) -> NTXent:
    """Returns the loss of SimCLR; see `NTXent` for the arguments."""
    return NTXent(temperature, reduction, block_size, decoupled)


def _metrics(z: tf.Tensor, everyone: tf.Tensor, sums: Sums) -> dict[str, tf.Tensor]:
    """Computes this replica's shares, from normalized z [2B, P] and everyone [2G, P]."""
    anchors = everyone.shape[0]
    batch = z.shape[0] // 2
    positives = 2.0 * tf.reduce_sum(z[:batch] * z[batch:])
    return {
        "contrastive_top1": sums.top1 / anchors,
        "contrastive_top5": sums.top5 / anchors,
        "positive_cosine": positives / anchors,
        "negative_cosine": sums.negative / anchors,
        "embedding_std": spread(everyone) * (z.shape[0] / anchors),
        "effective_rank": _participation_ratio(everyone) * (z.shape[0] / anchors),
    }


def _participation_ratio(rows: tf.Tensor) -> tf.Tensor:
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
