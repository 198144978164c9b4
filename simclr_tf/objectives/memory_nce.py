"""Finding an image's own row of a memory bank among random ones: the loss of PIRL.

Misra and van der Maaten, https://arxiv.org/abs/1912.01991. The authors' code (losses/nce_loss.py of
facebookresearch/vissl) has two forms of it: noise-contrastive estimation with a constant Z (Wu et
al., https://arxiv.org/abs/1805.01978) and InfoNCE.

Legend: B examples per replica, R replicas, G = B*R, n images of the data, K negatives, P
projection, m rows of the bank.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import gin
import numpy as np
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.metrics import Metric
from simclr_tf.objectives import view_metrics
from simclr_tf.objectives.projections import check_temperature, gathered, normalized

# "patch_loss", "image_loss": the two parts of the loss. "memory_cosine": mean cosine of all 2G
# outputs with their image's row of the bank. Of `view_metrics.METRICS`, "contrastive_top1",
# "contrastive_top5" and "negative_cosine" are of these outputs, the image's row and the negatives;
# "positive_cosine" is that of the patches' output with the image's, which the loss never compares.
METRICS = (
    Metric("patch_loss", "loss of patches"),
    Metric("image_loss", "loss of images"),
    Metric("memory_cosine", "cosine with the own memory"),
    *view_metrics.METRICS,
)


@dataclasses.dataclass(frozen=True)
class MemoryNCE:
    """Tells an image's own row of the bank from K others, by its patches and by itself.

    With s the cosine of an output and a row, NCE asks of each row whether it is the image's own: a
    logistic loss of s / T - ln(Z / n) - ln K, summed over the 1 + K rows. This is the authors'
    formula without their epsilon, which is 1e-5 of the K / n that it is added to. "cross_entropy"
    is InfoNCE: a softmax over the rows.

    Every example has negatives of its own, as in the authors' code, which copies their rows: K * P
    numbers an example. Here the cosines with the whole bank are computed, and those of the drawn
    rows picked, which takes n: less for up to 4 million images at the paper's K and P. So memory
    does not ask for negatives that a batch shares, and there is no such option.

    Attributes:
        temperature: T; 0.07 in the paper.
        negatives: K; 32,000 in the paper.
        form: "nce" or "cross_entropy".
        patch_weight: Share of the patches' loss, lambda in the paper.

    Raises:
        InvalidArgument: If an attribute is out of range.
    """

    temperature: float = 0.07
    negatives: int = 32_000
    form: Literal["nce", "cross_entropy"] = "nce"
    patch_weight: float = 0.5

    def __post_init__(self):
        check_temperature(self.temperature)
        if self.negatives < 1 or not 0 <= self.patch_weight <= 1:
            raise InvalidArgument(
                "memory_nce needs negatives >= 1 and 0 <= patch_weight <= 1. Received: "
                f"negatives={self.negatives}, patch_weight={self.patch_weight}."
            )

    def __call__(
        self,
        patches: tf.Tensor,
        images: tf.Tensor,
        bank: tf.Tensor,
        rows: tuple[tf.Tensor, tf.Tensor],
        partition: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Only `patches` and `images` have a gradient. Memory holds some tensors of B * n numbers.

        Args:
            patches: [B, P] of any float dtype, normalized here: g of the patches.
            images: [B, P], the same of f of the images.
            bank: [n, P] float32, rows of length 1.
            rows: The rows to compare, for patches and for images, int32 [B, 1 + K] each: the
                image's own row first.
            partition: Z / n, float32 scalar, for "nce".

        Returns:
            The share of the loss, float32 scalar, and the shares of the `METRICS`.
        """
        outputs = normalized(patches), normalized(images)
        cosines = [_cosines(z, bank, own) for z, own in zip(outputs, rows, strict=True)]
        examples = patches.shape[0] * collectives.num_replicas()
        of_patches, of_images = (
            tf.reduce_sum(self._losses(s, partition)) / examples for s in cosines
        )
        share = self.patch_weight * of_patches + (1.0 - self.patch_weight) * of_images
        s = tf.stop_gradient(tf.concat(cosines, axis=0))
        others = tf.concat(rows, axis=0)
        nearer = (s[:, 1:] >= s[:, :1]) & (others[:, 1:] != others[:, :1])
        rank = tf.reduce_sum(tf.cast(nearer, tf.int32), axis=1)
        unit = tf.stop_gradient(tf.concat(outputs, axis=0))
        metrics = view_metrics.view_metrics(
            unit,
            gathered(unit),
            top1=tf.reduce_sum(tf.cast(rank < 1, tf.float32)),
            top5=tf.reduce_sum(tf.cast(rank < 5, tf.float32)),
            negative=tf.reduce_sum(tf.reduce_mean(s[:, 1:], axis=1)),
        )
        return share, {
            "patch_loss": tf.stop_gradient(of_patches),
            "image_loss": tf.stop_gradient(of_images),
            "memory_cosine": tf.reduce_sum(s[:, 0]) / (2 * examples),
            **metrics,
        }

    def partition(self, z: tf.Tensor, bank: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Estimates Z / n by this replica's outputs: the mean of exp(s / T), float32 scalar."""
        return tf.reduce_mean(tf.exp(_cosines(normalized(z), bank, rows) / self.temperature))

    def chance(self) -> float:
        """Returns the loss of outputs that say nothing of their image."""
        total = math.log1p(self.negatives)
        if self.form == "cross_entropy":
            return total
        return total + self.negatives * math.log1p(1 / self.negatives)

    def floor(self, dim: int) -> float:
        """Returns the loss of outputs that equal their row, at right angles to negatives.

        For "nce" with the Z of random directions.

        Args:
            dim: P.
        """
        if self.form == "cross_entropy":
            return math.log1p(self.negatives * math.exp(-1.0 / self.temperature))
        low = -math.log(_mean_exponential(dim, self.temperature) * self.negatives)
        own, other = _softplus(-1.0 / self.temperature - low), _softplus(low)
        return own + self.negatives * other

    def _losses(self, cosines: tf.Tensor, partition: tf.Tensor | None) -> tf.Tensor:
        """Returns the loss of each example [B], from [B, 1 + K]."""
        logits = cosines / self.temperature
        if self.form == "cross_entropy":
            return tf.reduce_logsumexp(logits, axis=1) - logits[:, 0]
        logits -= tf.math.log(partition * self.negatives)
        of_negatives = tf.reduce_sum(tf.math.softplus(logits[:, 1:]), axis=1)
        return tf.math.softplus(-logits[:, 0]) + of_negatives


@gin.configurable
def memory_nce(
    temperature: float = 0.07,
    negatives: int = 32_000,
    form: Literal["nce", "cross_entropy"] = "nce",
    patch_weight: float = 0.5,
) -> MemoryNCE:
    """Returns the loss of PIRL; see `MemoryNCE` for the arguments."""
    return MemoryNCE(temperature, negatives, form, patch_weight)


def _cosines(z: tf.Tensor, bank: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns products [B, 1 + K] of z [B, P] with rows of the bank, int32 [B, 1 + K]."""
    every = tf.matmul(z, tf.stop_gradient(bank), transpose_b=True)
    return tf.gather(every, rows, batch_dims=1)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _mean_exponential(dim: int, temperature: float) -> float:
    """Returns the mean of exp(s / T) for the cosine s of random directions of a sphere."""
    s = np.linspace(-1.0, 1.0, 20_001)[1:-1]
    density = (1.0 - s**2) ** ((dim - 3) / 2)
    return float(np.sum(density * np.exp(s / temperature)) / np.sum(density))
