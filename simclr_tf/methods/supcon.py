"""SupCon: SimCLR's networks and views, with labels (https://arxiv.org/abs/2004.11362).

Every view of an image's class is a positive, so the representation learns the classes. Images
without a label are compared as in SimCLR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.methods.base import Tensors
from simclr_tf.methods.contrastive import Contrastive, encoder_and_head
from simclr_tf.methods.rules import DEAD_ENCODER, Chain
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import projection_head
from simclr_tf.objectives.sup_con import METRICS, SupCon, sup_con


@dataclasses.dataclass(frozen=True, eq=False)
class SupervisedContrast(Contrastive):
    """Contrastive learning by SupCon, on two views."""

    name = "SupCon"
    metrics = (Metric("supcon_loss", "supervised contrastive loss"), *METRICS)
    target_specs = MappingProxyType(
        {"labels": tf.TensorSpec([1], tf.int32), "index": tf.TensorSpec([1], tf.int32)}
    )
    needs_labels = True

    def targets(self, batch: Tensors) -> Tensors:
        return {"labels": batch["labels"], "index": batch["index"]}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        return self.objective(embedded["projection"], targets["labels"], targets["index"])

    def rules(self) -> Sequence[Chain]:
        return ((DEAD_ENCODER,),)

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        return {"loss": f"SupCon, temperature {self.objective.temperature:g}, with labels"}

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"supervised contrastive loss {numbers['supcon_loss']:.3f}, nearest of the class "
            f"{numbers['supcon_top1']:.1%}"
        )


@gin.configurable(denylist=["encoder", "image_size"])
def supcon(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    projection_head: Callable[..., keras.Model] = projection_head,
    loss: Callable[[], SupCon] = sup_con,
    encoder: Callable[..., keras.Model],
    image_size: int,
) -> SupervisedContrast:
    """Builds the networks of SupCon, in the scope and precision of the caller.

    Args:
        augmentation: How both views of an image are made.
        projection_head: Builds the network that is discarded, from `input_dim`.
        loss: Returns the loss of the projections.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the views in pixels.
    """
    views = ViewGroup("images", [augmentation()] * 2, image_size)
    networks = encoder_and_head(encoder, projection_head, image_size)
    return SupervisedContrast(networks, [views], loss())
