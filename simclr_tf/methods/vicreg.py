"""VICReg: equal projections of two views, whose dimensions vary and are not correlated.

Bardes, Ponce, LeCun, https://arxiv.org/abs/2105.04906. No image is compared with another one, and
nothing follows: the variance term alone keeps projections apart (section 4). As in the authors'
code (facebookresearch/vicreg) each view is a pass of its own, and both have other augmentations;
appendix C.1 of the paper says the same ones for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.contrastive import encoder_and_head, one_pass_per_view, two_views, view_lines
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain
from simclr_tf.methods.vicreg_rules import VICREG_RULES
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import mlp_projection_head
from simclr_tf.objectives.vicreg import METRICS, VICRegLoss, vicreg_loss


@dataclasses.dataclass(frozen=True, eq=False)
class VICReg(Method):
    """Encoder and projection head (the paper's expander), trained by `VICRegLoss`.

    Attributes:
        networks: "encoder" and "projection_head", as for `Contrastive`.
        objective: The loss of projections.
    """

    objective: VICRegLoss

    name = "VICReg"
    metrics = (Metric("vicreg_loss", "VICReg loss"), *METRICS)
    min_batch = 2

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"projection": tf.TensorSpec([2, self._dim])}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        h, z = one_pass_per_view(*self.networks.values(), batch["images"], training)
        return {"representation": h, "projection": z}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        return self.objective(embedded["projection"])

    def expected(self, global_batch: int) -> tuple[float, float] | None:
        chance, floor = self.objective.chance(), self.objective.floor(global_batch, self._dim)
        return (chance, floor) if chance > floor else None

    def rules(self) -> Sequence[Chain]:
        return (LABELS_LEAKING,), (DEAD_ENCODER, *VICREG_RULES)

    def exported(self) -> Mapping[str, keras.Model]:
        return self.networks

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        return {**view_lines(self.views[0]), "loss": self.objective.words()}

    def words(self, numbers: Mapping[str, float]) -> str:
        collapsed = f" (collapsed {numbers['loss_chance']:.2f})" if "loss_chance" in numbers else ""
        return (
            f"VICReg loss {numbers['vicreg_loss']:.3f}{collapsed}, "
            f"standard deviation {numbers['projection_std']:.2f}"
        )

    @property
    def _dim(self) -> int:
        return self.networks["projection_head"].outputs[-1].shape[-1]


@gin.configurable(denylist=["encoder", "image_size"])
def vicreg(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    other_augmentation: Callable[[], Augmentation] | None = None,
    projection_head: Callable[..., keras.Model] = mlp_projection_head,
    loss: Callable[[], VICRegLoss] = vicreg_loss,
    encoder: Callable[..., keras.Model],
    image_size: int,
) -> VICReg:
    """Builds the networks of VICReg, in the scope and precision of the caller.

    Args:
        augmentation: How both views of an image are made, or the first alone.
        other_augmentation: How the second view is made, such as @other/augmentation; None for the
            same as the first.
        projection_head: Builds the network that is discarded, from `input_dim`.
        loss: Returns the loss of projections.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the views in pixels.
    """
    networks = encoder_and_head(encoder, projection_head, image_size)
    return VICReg(networks, [two_views(augmentation, other_augmentation, image_size)], loss())
