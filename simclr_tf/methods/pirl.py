"""PIRL: an image and its shuffled patches find the image's row of a memory bank.

Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations,
https://arxiv.org/abs/1912.01991, with the jigsaw puzzle as pretext. The bank holds a moving average
of what each image of the data gave in earlier epochs. Both f of the image and g of its nine patches
are to tell the image's row from random ones; they are never compared with each other.

The order of a step is that of the authors' code (facebookresearch/vissl, losses/nce_loss.py):
outputs are compared with the bank of before the step; then the rows of the batch move towards f of
their images, by the networks of before the update. Z of the NCE is estimated by the patches of the
first batch of the run, whose loss it serves too, and then fixed. Patches pass the encoder before
images do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.patches import ShuffledPatches, shuffled_patches
from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.contrastive import encoder_and_head
from simclr_tf.methods.contrastive_rules import temperature_fault
from simclr_tf.methods.memory_bank import memory_bank, moved, rows_to_compare
from simclr_tf.methods.pirl_rules import pirl_rules
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import last_projection, plain_projection_head
from simclr_tf.models.networks import Networks, representation_dim
from simclr_tf.models.patch_head import patch_projection_head
from simclr_tf.objectives.memory_nce import METRICS, MemoryNCE, memory_nce
from simclr_tf.objectives.projections import normalized

# Numbers of the outputs, by which their negatives differ.
_PATCHES, _IMAGES = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class PIRL(Method):
    """An image's memory as the common positive of the image and of its patches.

    Attributes:
        networks: "encoder" and "projection_head" (f), as for `Contrastive`, and "patch_head" (g),
            from representations of an image's patches [N, V, D] to [N, P].
        views: A group "images" of one view, and one "patches".
        state: "bank" [n, P] float32, rows of length 1 in the order of the data; "batches", int32:
            how many have moved it; and for NCE "partition", Z / n, 0 before the first batch.
        objective: The loss.
        momentum: Share of itself that a row keeps in an update.
        total_steps: Updates of the whole run.
    """

    objective: MemoryNCE
    momentum: float
    total_steps: int

    name = "PIRL"
    metrics = (Metric("pirl_loss", "PIRL loss"), *METRICS)
    needs_positions = True

    @property
    def embedded_views(self) -> int:
        return 1

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([1, self._dim]) for name in ("image", "patches")}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"index": tf.TensorSpec([1], tf.int32)}

    def targets(self, batch: Tensors) -> Tensors:
        return {"index": batch["index"]}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        encoder, head, patch_head = self.networks.values()
        of_patches = encoder(batch["patches"], training=training)["final_avg_pool"]
        h = encoder(batch["images"], training=training)["final_avg_pool"]
        projections = head(h, training=training)
        by_view = tf.reshape(of_patches, [-1, *h.shape])
        return {
            "representation": h,
            "image": last_projection(projections),
            "patches": patch_head(tf.transpose(by_view, [1, 0, 2]), training=training),
        }

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        bank, index = tf.convert_to_tensor(self.state["bank"]), targets["index"]
        rows = self._rows(index, _PATCHES), self._rows(index, _IMAGES)
        partition = self._partition(embedded["patches"], index)
        return self.objective(embedded["patches"], embedded["image"], bank, rows, partition)

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        bank, batches = self.state["bank"], self.state["batches"]
        if "partition" in self.state:
            self.state["partition"].assign(self._partition(inputs["patches"], inputs["index"]))
        index = collectives.gather_numbers(inputs["index"])
        outputs = collectives.all_gather(normalized(inputs["image"]))
        bank.assign(moved(tf.convert_to_tensor(bank), index, outputs, self.momentum))
        batches.assign(batches + 1)

    def check(
        self, *, num_examples: int, global_batch: int, microbatch: int, replicas: int
    ) -> None:
        rows = self.state["bank"].shape[0]
        if rows != num_examples:
            raise InvalidArgument(
                "The bank of PIRL must have a row for each image. Received: "
                f"num_examples={rows:,} for the method, with {num_examples:,} images."
            )

    def expected(self, global_batch: int) -> tuple[float, float]:
        return self.objective.chance(), self.objective.floor(self._dim)

    def faults(self) -> Sequence[Finding]:
        fault = temperature_fault(self.objective.temperature)
        return [fault] if fault else []

    def rules(self) -> Sequence[Chain]:
        own = pirl_rules(
            self.metrics[0],
            momentum=self.momentum,
            images=self.state["bank"].shape[0],
            total_steps=self.total_steps,
            floor=self.objective.floor(self._dim),
        )
        return (LABELS_LEAKING,), (DEAD_ENCODER, *own)

    def exported(self) -> Mapping[str, keras.Model]:
        return {name: self.networks[name] for name in ("encoder", "projection_head")}

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        form = {"nce": "NCE", "cross_entropy": "InfoNCE"}[self.objective.form]
        rows, dim = self.state["bank"].shape
        images, patches = (group.augmentations[0].words for group in self.views)
        return {
            "view": images,
            "patches": patches,
            "loss": f"{form}, temperature {self.objective.temperature:g}, "
            f"{self.objective.negatives:,} negatives of the bank",
            "bank": f"{rows:,} rows of {dim}, momentum {self.momentum:g}",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"PIRL loss {numbers['pirl_loss']:.3f} (chance {numbers['loss_chance']:.2f}), "
            f"top-1 {numbers['contrastive_top1']:.1%}"
        )

    @property
    def _dim(self) -> int:
        return self.state["bank"].shape[1]

    def _rows(self, index: tf.Tensor, head: int) -> tf.Tensor:
        """Returns the rows of the bank that an output is compared with: int32 [B, 1 + K]."""
        return rows_to_compare(
            index,
            tf.convert_to_tensor(self.state["batches"]),
            images=self.state["bank"].shape[0],
            negatives=self.objective.negatives,
            head=head,
        )

    def _partition(self, patches: tf.Tensor, index: tf.Tensor) -> tf.Tensor | None:
        """Returns Z / n, which the first batch decides; None for a loss without it."""
        if "partition" not in self.state:
            return None
        known = tf.convert_to_tensor(self.state["partition"])
        patches = tf.stop_gradient(patches)

        def estimate() -> tf.Tensor:
            bank = tf.convert_to_tensor(self.state["bank"])
            return self.objective.partition(patches, bank, self._rows(index, _PATCHES))

        own = tf.cond(known > 0.0, lambda: tf.identity(known), estimate)
        return tf.where(known > 0.0, known, collectives.all_reduce_mean(own))


@gin.configurable(denylist=["encoder", "image_size", "total_steps", "num_examples"])
def pirl(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    patches: Callable[[], ShuffledPatches] = shuffled_patches,
    projection_head: Callable[..., keras.Model] = plain_projection_head,
    patch_head: Callable[..., keras.Model] = patch_projection_head,
    loss: Callable[[], MemoryNCE] = memory_nce,
    momentum: float = 0.5,
    encoder: Callable[..., keras.Model],
    image_size: int,
    total_steps: int,
    num_examples: int,
) -> PIRL:
    """Builds the networks of PIRL and its bank, in the scope and precision of the caller.

    Args:
        augmentation: How the image's own view is made.
        patches: How its patches are made: @shuffled_patches.
        projection_head: Builds f's head, which is discarded, from `input_dim`.
        patch_head: Builds g's head from `input_dim` and `patches`, their number.
        loss: Returns the loss: @memory_nce.
        momentum: Share of itself that an image's row of the bank keeps in an update.
        encoder: Builds the network that is kept, for images of any size, from `image_size`.
        image_size: Side of the image's own view in pixels.
        total_steps: Updates of the whole run.
        num_examples: n, the images of the data: the rows of the bank.
    """
    if not 0 <= momentum <= 1:
        raise InvalidArgument(f"pirl needs 0 <= momentum <= 1. Received: momentum={momentum}.")
    networks = encoder_and_head(encoder, projection_head, image_size)
    puzzle, dim = patches(), networks["projection_head"].outputs[-1].shape[-1]
    of_patches = patch_head(input_dim=representation_dim(networks["encoder"]), patches=puzzle.count)
    if of_patches.outputs[0].shape[-1] != dim:
        raise InvalidArgument(
            "Both heads of PIRL must project to the dimension of the bank. Received: "
            f"{dim} by pirl.projection_head and {of_patches.outputs[0].shape[-1]} by "
            "pirl.patch_head. Set the same output_dim for both."
        )
    objective = loss()
    counters = {"batches": "int32", **({"partition": "float32"} if objective.form == "nce" else {})}
    state = {
        name: keras.Variable(0, dtype=dtype, trainable=False, name=name)
        for name, dtype in counters.items()
    }
    return PIRL(
        networks | Networks({"patch_head": of_patches}),
        [
            ViewGroup("images", [augmentation()], image_size),
            ViewGroup("patches", [puzzle] * puzzle.count, puzzle.patch),
        ],
        state={"bank": memory_bank(num_examples, dim), **state},
        objective=objective,
        momentum=momentum,
        total_steps=total_steps,
    )
