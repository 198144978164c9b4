"""Distillation and self-training of SimCLRv2 (https://arxiv.org/abs/2006.10029, section 2).

A student learns the probabilities that a fine-tuned teacher gives to an image, which needs no
label. The student may be smaller than the teacher, or like it (self-distillation).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Tensors
from simclr_tf.methods.rules import DEAD_ENCODER, Chain, Report, Rule
from simclr_tf.methods.supervised import Supervised
from simclr_tf.metrics import Metric
from simclr_tf.objectives.cross_entropy import cross_entropies, label_ranks
from simclr_tf.objectives.distillation import soft_cross_entropies

# Share of the entropy of even chances. A fine-tuned teacher is sure of most of its own training
# images; an untrained one is within a percent of even chances.
UNDECIDED = 0.98


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation(Supervised):
    """A classifier on an encoder, trained to a teacher's probabilities of one view per image.

    The teacher sees the same view in inference mode. The loss is (1 - w) times the cross-entropy
    with the teacher plus w times that with labels, to which an image without a label adds nothing.

    Attributes:
        networks: As for `Supervised`.
        fixed: "teacher", images [N, S, S, 3] to representations, and "teacher_classifier", from
            these to logits [N, C].
        temperature: T, the divisor of both networks' logits.
        label_weight: w.
    """

    temperature: float = 1.0
    label_weight: float = 0.0

    name = "distillation"
    metrics = (
        Metric("distillation_loss", "distillation loss"),
        Metric("teacher_entropy", "the same of the teacher itself"),
        Metric("teacher_agreement", "agreement with the teacher"),
        Metric("top1", "train top-1"),
        Metric("top5"),
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0 or not 0 <= self.label_weight <= 1:
            raise InvalidArgument(
                "A distillation needs temperature > 0 and 0 <= label_weight <= 1. Received: "
                f"temperature={self.temperature}, label_weight={self.label_weight}."
            )
        taught = self.fixed["teacher_classifier"].output.shape[-1]
        if taught != self.num_classes:
            raise InvalidArgument(
                "The teacher must know the classes of the student. Received: a teacher of "
                f"{taught} classes, and a student of {self.num_classes}. Choose the teacher that "
                "was trained on this data set."
            )

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        logits = tf.TensorSpec([1, self.num_classes])
        return {**super().target_specs, "teacher_logits": logits}

    def targets(self, batch: Tensors) -> Tensors:
        encoder, classifier = self.fixed.values()
        representation = encoder(batch["images"], training=False)
        logits = tf.cast(classifier(representation, training=False), tf.float32)
        return {**super().targets(batch), "teacher_logits": logits}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        logits, labels, taught = embedded["logits"], targets["labels"], targets["teacher_logits"]
        losses, entropies = soft_cross_entropies(logits, taught, self.temperature)
        if self.label_weight:
            losses *= 1.0 - self.label_weight
            losses += self.label_weight * cross_entropies(logits, labels)
        agrees = tf.argmax(logits, axis=1) == tf.argmax(taught, axis=1)
        ranks = label_ranks(logits, labels)
        found = {
            "teacher_entropy": entropies,
            "teacher_agreement": tf.cast(agrees, tf.float32),
            **{f"top{k}": tf.cast(ranks < k, tf.float32) for k in (1, 5)},
        }
        rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
        shares = {name: tf.reduce_sum(values) / rows for name, values in found.items()}
        return tf.reduce_sum(losses) / rows, shares

    def expected(self, global_batch: int) -> tuple[float, float] | None:
        # How many images of a batch have labels is not known here.
        return None if self.label_weight else (self._even_chances, 0.0)

    def rules(self) -> Sequence[Chain]:
        return (Rule("teacher undecided", self._undecided),), (DEAD_ENCODER,)

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        labels = f", labels count {self.label_weight:g}" if self.label_weight else ", no labels"
        return {
            **super().plan_lines(global_batch),
            "loss": f"cross-entropy with the teacher, temperature {self.temperature:g}{labels}",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        chance = f" (chance {numbers['loss_chance']:.2f})" if "loss_chance" in numbers else ""
        return (
            f"distillation loss {numbers['distillation_loss']:.3f}{chance}, agreement "
            f"{numbers['teacher_agreement']:.1%}, top-1 {numbers['top1']:.1%}"
        )

    @property
    def _even_chances(self) -> float:
        """The cross-entropy of a student that gives all classes the same chance."""
        return self.temperature**2 * math.log(self.num_classes)

    def _undecided(self, report: Report) -> str | None:
        entropy = report.numbers["teacher_entropy"]
        if entropy < UNDECIDED * self._even_chances:
            return None
        return (
            f"the teacher gives all classes about the same chance (entropy {entropy:.3f}, at most "
            f"{self._even_chances:.3f}), so there is nothing to learn from it. Was it fine-tuned, "
            "and on such images? Else lower distill.temperature."
        )
