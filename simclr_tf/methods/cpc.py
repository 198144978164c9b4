"""CPC v2: patches of an image, predicted from the patches before them.

Hénaff et al., Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020,
https://arxiv.org/abs/1905.09272. An image is cut in a grid of overlapping patches, each of which is
augmented by itself and passes the encoder by itself. A context network sees the rows up to a patch,
and predicts the vectors of patches further on, which are to be found among all patches of a group
of images; and so in the other directions.

The authors published no code to train it. Their appendix has pseudo-code of the loss and of the
context network. What differs here: docs/methods.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import keras
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.policy import Augmentation, augmentation, parse_policy
from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute import collectives
from simclr_tf.distribute.batch_norm import normalizes_batches
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.cpc_rules import (
    PATCHES_EASY,
    SHARED_STATISTICS,
    late_learning_rules,
    overlap,
)
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.context import context_network
from simclr_tf.models.networks import Networks, representation_dim
from simclr_tf.models.patches import cut, parts_of
from simclr_tf.objectives.cpc import METRICS, CPCLoss, cpc_loss

# The ops of the paper that the package has; the probabilities are those of the recipes.
PATCH_POLICY = (
    ("flip", 0.5),
    ("color_drop", 0.5),
    ("color_jitter", 0.8, 0.5),
    ("grayscale", 0.25),
)


@dataclasses.dataclass(frozen=True, eq=False)
class CPC(Method):
    """An encoder of patches, trained by `CPCLoss` on what a context network makes of them.

    A patch's augmentation is a function of the number of updates, of the image and of its place, so
    that it is equal on any number of replicas, in both passes of micro-batches and after a restart.

    Attributes:
        networks: "encoder", a `patch_encoder`, and "context", a `context_network` on its grid.
        state: "updates", their number so far, int32.
        objective: The loss.
        patch_augmentation: Its policy changes each patch; it crops nothing.
        clip: Largest norm of a variable's gradient; None for any.
    """

    objective: CPCLoss
    patch_augmentation: Augmentation
    clip: float | None

    name = "CPC"
    metrics = (Metric("cpc_loss", "CPC loss"), *METRICS)

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        outputs = self.networks["context"].output
        return {name: tf.TensorSpec([1, *x.shape[1:]]) for name, x in outputs.items()}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        encoder, context = self.networks.values()
        patches, network = parts_of(encoder)
        cuttings = self._augmented(cut(batch["images"], patches.size, patches.stride), batch)
        h = network(cuttings, training=training)["final_avg_pool"]
        grid = tf.reshape(h, [-1, self._side, self._side, h.shape[-1]])
        representation = tf.reduce_mean(grid, axis=[1, 2])
        return {"representation": representation, **context(grid, training=training)}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        return self.objective(embedded["predictions"], embedded["targets"])

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        if self.clip is None:
            return gradients
        return [tf.clip_by_norm(gradient, self.clip) for gradient in gradients]

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        self.state["updates"].assign(tf.cast(step.value, "int32"))

    def expected(self, global_batch: int) -> tuple[float, float]:
        return self.objective.chance(global_batch, self._side), 0.0

    def check(
        self, *, num_examples: int, global_batch: int, microbatch: int, replicas: int
    ) -> None:
        groups = self.objective.negative_groups
        collectives.check_groups("cpc_loss.negative_groups", groups, global_batch, replicas)

    def faults(self) -> Sequence[Finding]:
        patches, network = parts_of(self.networks["encoder"])
        shares = normalizes_batches(network)
        overlapping = overlap(min(self.objective.offsets), patches.stride, patches.size)
        found = (SHARED_STATISTICS if shares else None, overlapping)
        return [fault for fault in found if fault]

    def rules(self) -> Sequence[Chain]:
        judged = late_learning_rules(self.metrics[0])
        return (LABELS_LEAKING,), (DEAD_ENCODER, PATCHES_EASY, *judged)

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        patches, _ = parts_of(self.networks["encoder"])
        loss, side = self.objective, self._side
        ops = self.patch_augmentation.op_words
        images = global_batch // loss.negative_groups
        size = f"{side} x {side} of {patches.size} pixels, {patches.stride} apart"
        return {
            "patches": "; ".join([size, ", ".join(ops) or "no augmentation of their own"]),
            "loss": f"InfoNCE of the patches {', '.join(map(str, loss.offsets))} further "
            f"{', '.join(loss.directions)}, among the {images * side**2:,} of {images:,} images",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"CPC loss {numbers['cpc_loss']:.3f} (chance {numbers['loss_chance']:.2f}), "
            f"patches found {numbers['prediction_top1']:.1%}"
        )

    @property
    def _side(self) -> int:
        """g, the number of patches in a row."""
        return self.networks["context"].inputs[0].shape[1]

    def _augmented(self, patches: tf.Tensor, batch: Tensors) -> tf.Tensor:
        """Augments the patches [B*g*g, p, p, 3] of a batch, each by draws of its own."""
        updates = tf.convert_to_tensor(self.state["updates"])
        places = tf.range(self._side**2)
        keys = random_keys.example_keys(0, updates, batch["index"][:, tf.newaxis], places)
        return self.patch_augmentation(patches, tf.reshape(keys, [-1, 2]))


@gin.configurable(denylist=["encoder", "image_size"])
def cpc(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    patch_policy: Sequence[Any] = PATCH_POLICY,
    context_network: Callable[..., keras.Model] = context_network,
    loss: Callable[[], CPCLoss] = cpc_loss,
    clip_norm: float | None = 0.01,
    encoder: Callable[..., keras.Model],
    image_size: int,
) -> CPC:
    """Builds the networks of CPC v2, in the scope and precision of the caller.

    Args:
        augmentation: How the image is made that is cut into patches: its crop, and ops on it as a
            whole.
        patch_policy: Ops on each patch, as in `augmentation.policy`. They run on the device.
        context_network: Builds what predicts patches.
        loss: Returns the loss.
        clip_norm: Largest norm of each variable's gradient; None for any.
        encoder: Builds the network that is kept, from `image_size`: @patch_encoder.
        image_size: Side of the image in pixels.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise InvalidArgument(
            f"cpc.clip_norm must be above 0, or None. Received: clip_norm={clip_norm}."
        )
    model, objective = encoder(image_size=image_size), loss()
    parts_of(model)
    side = model.output["patch_grid"].shape[1]
    if max(objective.offsets) >= side:
        raise InvalidArgument(
            f"cpc_loss.offsets must be below the number of patches in a row, {side}. Received: "
            f"{objective.offsets}."
        )
    context = context_network(
        directions=objective.directions,
        num_offsets=len(objective.offsets),
        side=side,
        input_dim=representation_dim(model),
    )
    return CPC(
        Networks({"encoder": model, "context": context}),
        [ViewGroup("images", [augmentation()], image_size)],
        state={"updates": keras.Variable(0, dtype="int32", trainable=False, name="updates")},
        objective=objective,
        patch_augmentation=_of_patches(patch_policy),
        clip=clip_norm,
    )


def _of_patches(entries: Sequence[Any]) -> Augmentation:
    policy = parse_policy(entries)
    if unfit := [op.name for op in policy if not op.compiles]:
        raise InvalidArgument(
            "Ops of cpc.patch_policy must be ones that XLA compiles, as they run in the step. "
            f"Received: {', '.join(unfit)}. Put them into augmentation.policy, for the whole image."
        )
    return Augmentation(policy)
