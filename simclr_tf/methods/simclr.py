"""SimCLR: agreement of two views of an image against all others (https://arxiv.org/abs/2002.05709).

One encoder f and one nonlinear projection head g see both views in one pass, so that batch
normalization cannot tell them apart; NT-Xent (eq. 1) compares z = g(f(x)) over the global batch.
More, smaller views of an image may be compared with its two large ones (multi-crop).
After training the head is discarded, and h = f(x) is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.methods import contrastive
from simclr_tf.methods.base import Tensors
from simclr_tf.methods.contrastive import Contrastive, encoder_and_head, view_lines
from simclr_tf.methods.contrastive_rules import CONTRASTIVE_RULES
from simclr_tf.methods.rules import (
    DEAD_ENCODER,
    LABELS_LEAKING,
    Chain,
    learning_rules,
)
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import projection_head
from simclr_tf.objectives import margin_triplet, nt_logistic  # noqa: F401, for recipes
from simclr_tf.objectives.base import ViewLoss
from simclr_tf.objectives.nt_xent import nt_xent
from simclr_tf.objectives.view_metrics import METRICS


@dataclasses.dataclass(frozen=True, eq=False)
class SimCLR(Contrastive):
    """Contrastive learning by a loss of two views, perhaps with small views."""

    name = "SimCLR"
    metrics = (Metric("contrastive_loss", "contrastive loss"), *METRICS)
    target_specs = MappingProxyType({"index": tf.TensorSpec([1], tf.int32)})

    def targets(self, batch: Tensors) -> Tensors:
        return {"index": batch["index"]}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        small = embedded.get("small_projection")
        return self.objective(embedded["projection"], targets["index"], small)

    def expected(self, global_batch: int) -> tuple[float, float] | None:
        chance, floor = self.objective.chance(global_batch), self.objective.floor(global_batch)
        return (chance, floor) if chance > floor else None

    def rules(self) -> Sequence[Chain]:
        # A temperature fault already explains why nothing is learned.
        judged = self.objective.tells_learning and not self.faults()
        learning = learning_rules(self.metrics[0]) if judged else ()
        return (LABELS_LEAKING,), (DEAD_ENCODER, *CONTRASTIVE_RULES, *learning)

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        return {**view_lines(self.views[0]), "loss": self.objective.words(global_batch)}

    def words(self, numbers: Mapping[str, float]) -> str:
        chance = f" (chance {numbers['loss_chance']:.2f})" if "loss_chance" in numbers else ""
        return (
            f"contrastive loss {numbers['contrastive_loss']:.3f}{chance}, "
            f"top-1 {numbers['contrastive_top1']:.1%}"
        )


@gin.configurable(denylist=["encoder", "image_size"])
def simclr(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    other_augmentation: Callable[[], Augmentation] | None = None,
    projection_head: Callable[..., keras.Model] = projection_head,
    loss: Callable[[], ViewLoss] = nt_xent,
    small_views: int = 0,
    small_size: int | None = None,
    small_augmentation: Callable[[], Augmentation] = augmentation,
    encoder: Callable[..., keras.Model],
    image_size: int,
) -> SimCLR:
    """Builds the networks of SimCLR, in the scope and precision of the caller.

    Args:
        augmentation: How both views of an image are made, or the first alone.
        other_augmentation: How the second view is made; None for the same as the first. The paper
            compares ops on one branch, the other being the identity (section 3.2, figure 5):
            @other/augmentation with an empty policy. There, crop is an op like the others, so the
            crop before it is the same on both branches. `random_crop = False` for both gives
            them the same central square, and the op 'crop' another crop of it to one of them.
        projection_head: Builds the network that is discarded, from `input_dim`.
        loss: Returns the loss of the projections: @nt_xent, or those that table 4 compares with
            it, @nt_logistic and @margin_triplet.
        small_views: Number of smaller views of each image that are compared with both large ones.
        small_size: Side of the small views in pixels; None for half of `image_size`.
        small_augmentation: How small views are made, such as @small/augmentation whose
            `area_range` ends where that of large views begins.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the views in pixels.
    """
    views = [
        contrastive.two_views(augmentation, other_augmentation, image_size),
        *contrastive.small_views("simclr", small_views, small_size, small_augmentation, image_size),
    ]
    networks = encoder_and_head(encoder, projection_head, image_size)
    return SimCLR(networks, views, loss())
