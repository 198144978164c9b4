"""BYOL: prediction of a slow copy's projection of another view, without negatives.

Grill et al., Bootstrap Your Own Latent, https://arxiv.org/abs/2006.07733. The online network is an
encoder, a projection head and a predictor. The target network, encoder and head, follows by a
moving average whose momentum rises to 1 (section 3.1). As in the authors' code (deepmind-research,
byol), each view is a pass of its own, the target normalizes by the statistics of its batch and
keeps moving statistics of its own, and the loss of both directions is summed.

Nothing in the loss keeps images apart: it also falls when all projections become equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.byol_rules import COLLAPSE, slow_target
from simclr_tf.methods.contrastive import encoder_and_head, one_pass_per_view, two_views, view_lines
from simclr_tf.methods.followers import follow, followers_of, rising_momentum
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import mlp_projection_head, predictor
from simclr_tf.models.networks import Networks
from simclr_tf.objectives.byol import CHANCE, FLOOR, METRICS, byol_loss

TARGET_PREFIX = "target_"


@dataclasses.dataclass(frozen=True, eq=False)
class BYOL(Method):
    """An online network that predicts what its slow copy sees in the other view.

    Attributes:
        networks: "encoder" and "projection_head", as for `Contrastive`, and "predictor", from
            projections to projections [N, P].
        followers: "target_encoder" and "target_projection_head".
        momentum: Share of its weights that the target keeps in the first update.
        total_steps: K, the updates until that share is 1.
    """

    momentum: float
    total_steps: int

    name = "BYOL"
    metrics = (Metric("byol_loss", "BYOL loss"), *METRICS)

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"prediction": self._rows, "projection": self._rows}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"target": self._rows}

    def targets(self, batch: Tensors) -> Tensors:
        encoder, head = self.followers.values()
        _, target = one_pass_per_view(encoder, head, batch["images"], training=True)
        return {"target": target}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        encoder, head, predictor = self.networks.values()
        h, z = one_pass_per_view(encoder, head, batch["images"], training)
        predicted = [predictor(view, training=training) for view in tf.split(z, 2)]
        return {"representation": h, "prediction": tf.concat(predicted, axis=0), "projection": z}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        return byol_loss(embedded["prediction"], targets["target"], embedded["projection"])

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        follow(self.followers, self.networks, self.momentum_after(step.value - 1))

    def momentum_after(self, steps: tf.Tensor) -> tf.Tensor:
        """Returns the share that the target keeps in the update after some: float32 scalar."""
        return rising_momentum(self.momentum, steps, self.total_steps)

    def expected(self, global_batch: int) -> tuple[float, float]:
        return CHANCE, FLOOR

    def faults(self) -> Sequence[Finding]:
        fault = slow_target("byol.momentum", self.momentum, self.total_steps)
        return [fault] if fault else []

    def rules(self) -> Sequence[Chain]:
        return (LABELS_LEAKING,), (DEAD_ENCODER, COLLAPSE)

    def exported(self) -> Mapping[str, keras.Model]:
        return {name: self.networks[name] for name in ("encoder", "projection_head")}

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        return {
            **view_lines(self.views[0]),
            "loss": "BYOL, both directions summed",
            "target": f"momentum {self.momentum:g}, rising to 1 in {self.total_steps:,} steps",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"BYOL loss {numbers['byol_loss']:.3f} (chance {numbers['loss_chance']:.2f}), "
            f"spread {numbers['embedding_std']:.2f}"
        )

    @property
    def _rows(self) -> tf.TensorSpec:
        return tf.TensorSpec([2, self.networks["predictor"].outputs[0].shape[-1]])


@gin.configurable(denylist=["encoder", "image_size", "total_steps"])
def byol(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    other_augmentation: Callable[[], Augmentation] | None = None,
    projection_head: Callable[..., keras.Model] = mlp_projection_head,
    predictor: Callable[..., keras.Model] = predictor,
    momentum: float = 0.996,
    encoder: Callable[..., keras.Model],
    image_size: int,
    total_steps: int,
) -> BYOL:
    """Builds the networks of BYOL, in the scope and precision of the caller.

    Args:
        augmentation: How both views of an image are made, or the first alone.
        other_augmentation: How the second view is made, such as @other/augmentation; None for the
            same as the first.
        projection_head: Builds the head of both networks, from `input_dim`.
        predictor: Builds the predictor of projections, from `input_dim`.
        momentum: Share of its weights that the target keeps in the first update, from which it
            rises to 1 at the end of the run. A shorter run needs a lower one.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the views in pixels.
        total_steps: Updates of the whole run.
    """
    if not 0 <= momentum <= 1:
        raise InvalidArgument(
            f"byol.momentum must be from 0 to 1. Received: momentum={momentum}. The paper's is "
            "0.996 for 1,000 epochs, and 0.99 for 100."
        )
    online = encoder_and_head(encoder, projection_head, image_size)
    copy = encoder_and_head(encoder, projection_head, image_size)
    dim = online["projection_head"].outputs[-1].shape[-1]
    return BYOL(
        online | Networks({"predictor": predictor(input_dim=dim)}),
        [two_views(augmentation, other_augmentation, image_size)],
        followers=followers_of(online, copy, TARGET_PREFIX),
        momentum=momentum,
        total_steps=total_steps,
    )
