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

from simclr_tf.errors import InvalidArgument
from simclr_tf.objectives.blockwise import Sums, contrast
from simclr_tf.objectives.projections import (
    check_temperature,
    gathered,
    image_numbers,
    normalized,
    own_columns,
    rows,
    two_views,
)
from simclr_tf.objectives.view_metrics import view_metrics

REDUCTIONS = ("paper", "reference")


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
        normalize: whether the similarity is the cosine, else the product (table 5, which tries
            temperatures of 10 and 100 for products).
        one_view_negatives: whether negatives are of the positive's view alone, G - 1 of them, as
            for all losses of table 4 (appendix B.10).

    Raises:
        InvalidArgument: If the temperature is not positive, the reduction is unknown,
            block_size is below 1, or the loss is decoupled and not normalized.
    """

    temperature: float = 0.1
    reduction: Literal["paper", "reference"] = "paper"
    block_size: int | None = None
    decoupled: bool = False
    normalize: bool = True
    one_view_negatives: bool = False

    tells_learning = True

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

        if self.decoupled and not self.normalize:
            raise InvalidArgument(
                "decoupled needs normalized projections: longer ones would lower the loss without "
                "end. Received: decoupled=True, normalize=False. Leave one of them out."
            )

    def __call__(
        self, z: tf.Tensor, images: tf.Tensor | None = None, small: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Args:
            z: [2B, P] projections of any float dtype, view 1 of all local examples, then view 2.
                The shape must be static and the same on all replicas. The rows are normalized here,
                unless `normalize` is off.
            images: [B] int32, the number of each local example's image, from 0 on. None if no image
                occurs twice in the global batch.
            small: [V*B, P] projections of V more views of each local example, view after view.
                Each picks both views of its image in z, one after the other, among z alone; the
                loss is the mean over all such pairs (multi-crop; Caron et al., SwAV, 2020,
                https://arxiv.org/abs/2006.09882, section 3.2). None for no more views.

        Returns:
            The share of the loss, float32 scalar, and float32 scalars named by
            `view_metrics.METRICS`. These
            are shares too: the sum over replicas is the global value.

        Raises:
            ValueError: If the shape is not [2B, P] or the global batch is one.
        """
        z = two_views(z, self.normalize)
        everyone = gathered(z)
        image, every_image = image_numbers(images, z.shape[0] // 2)
        compare = functools.partial(
            self._compare, candidates=everyone, image=image, every_image=every_image
        )
        sums = compare(z, sought=(1, 0))
        total, pairs = sums.loss, everyone.shape[0]
        if small is not None:
            views = small.shape[0] // image.shape[0]
            total += compare(tf.tile(rows(small, self.normalize), [2, 1]), sought=(0, 1)).loss
            pairs *= 1 + views
        loss = total / pairs
        if self.reduction == "reference":
            loss *= self._factor
        if not self.normalize:
            z, everyone = normalized(z), normalized(everyone)
            cosines = self._compare(z, everyone, image, every_image, sought=(1, 0))
            sums = sums._replace(negative=cosines.negative)
        metrics = view_metrics(z, everyone, top1=sums.top1, top5=sums.top5, negative=sums.negative)
        return loss, metrics

    def _compare(
        self,
        anchors: tf.Tensor,
        candidates: tf.Tensor,
        image: tf.Tensor,
        every_image: tf.Tensor,
        sought: tuple[int, int],
    ) -> Sums:
        """Compares anchors [n*B, P], whose first and second half have their positives in a view.

        Args:
            anchors: rows of the local examples' views, view after view.
            candidates: [2G, P], view 1 of all examples and then view 2.
            image: [B], the numbers of the local examples' images.
            every_image: [G], the same of all examples.
            sought: the views of both halves' positives, 0 for view 1.
        """
        run = functools.partial(
            contrast,
            temperature=self.temperature,
            block_size=self.block_size,
            decoupled=self.decoupled,
        )
        batch = image.shape[0]
        columns, views = own_columns(batch), anchors.shape[0] // batch
        if not self.one_view_negatives:
            return run(
                anchors,
                candidates,
                tf.tile(image, [views]),
                tf.tile(every_image, [2]),
                tf.concat([columns[v] for v in sought for _ in range(views // 2)], axis=0),
            )
        by_view, half = tf.split(candidates, 2), [views // 2]
        found = [
            run(some, by_view[v], tf.tile(image, half), every_image, tf.tile(columns[0], half))
            for some, v in zip(tf.split(anchors, 2), sought, strict=True)
        ]
        return Sums(*map(sum, zip(*found, strict=True)))

    def chance(self, global_batch: int) -> float:
        """Returns the loss of equal embeddings.

        log(1 + n) for n negatives, or log(n) if decoupled; twice that for "reference".
        """
        return self._factor * math.log(self._negatives(global_batch) + (not self.decoupled))

    def floor(self, global_batch: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles.

        log(1 + n e^(-1 / temperature)) for n negatives, without the 1 if decoupled; twice that for
        "reference". Only negatives at obtuse angles lower it, and n vectors can exceed right
        angles to each other only minimally. 0 for projections of any length.
        """
        if not self.normalize:
            return 0.0
        negatives = self._negatives(global_batch)
        if self.decoupled:
            return self._factor * (math.log(negatives) - 1.0 / self.temperature)
        return self._factor * math.log1p(negatives * math.exp(-1.0 / self.temperature))

    def words(self, global_batch: int) -> str:
        name = "decoupled NT-Xent" if self.decoupled else "NT-Xent"
        raw = "" if self.normalize else ", projections not normalized"
        negatives = self._negatives(global_batch)
        return f"{name}, temperature {self.temperature:g}, {negatives} negatives per anchor{raw}"

    @property
    def softmax_temperature(self) -> float | None:
        return self.temperature if self.normalize else None

    def _negatives(self, global_batch: int) -> int:
        return (1 if self.one_view_negatives else 2) * (global_batch - 1)

    @property
    def _factor(self) -> float:
        return 2.0 if self.reduction == "reference" else 1.0


@gin.configurable
def nt_xent(
    temperature: float = 0.1,
    reduction: Literal["paper", "reference"] = "paper",
    block_size: int | None = None,
    decoupled: bool = False,
    normalize: bool = True,
    one_view_negatives: bool = False,
) -> NTXent:
    """Returns the loss of SimCLR; see `NTXent` for the arguments."""
    return NTXent(temperature, reduction, block_size, decoupled, normalize, one_view_negatives)
