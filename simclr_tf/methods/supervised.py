"""Cross-entropy with labels: the supervised baseline, fine-tuning and the linear layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import last_projection
from simclr_tf.objectives.cross_entropy import cross_entropies, label_ranks


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised(Method):
    """A classifier on an encoder, trained by softmax cross-entropy of one view per image.

    Layers that are not trainable run in inference mode, batch normalization included. An image
    whose label is unknown (-1) counts as a loss of zero and as not recognized.

    Attributes:
        networks: "encoder"; "projection_head" with its kept layers, if any; and "probe", the
            classifier, from the last of these layers, else from the representation, to logits
            [N, classes].
        views: One group, "images", of one view.
        classifier_decay: Weight decay of the classifier's kernel in the gradient, as the reference
            has it: it adds decay / 2 * ||kernel||^2 to what is minimized, and LARS, which excludes
            the classifier, does not adapt it. 0 for none.
    """

    classifier_decay: float = 0.0

    name = "supervised"
    metrics = (
        Metric("cross_entropy", "cross-entropy"),
        Metric("top1", "train top-1"),
        Metric("top5"),
    )

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"logits": tf.TensorSpec([1, self.num_classes])}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"labels": tf.TensorSpec([1], tf.int32)}

    def targets(self, batch: Tensors) -> Tensors:
        return {"labels": batch["labels"]}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        encoder, *head, classifier = self.networks.values()
        representation = last = encoder(batch["images"], training=training)["final_avg_pool"]
        if head:
            projections = head[0](representation, training=training)
            last = last_projection(projections)
        return {"representation": representation, "logits": classifier(last, training=training)}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        logits, labels = embedded["logits"], targets["labels"]
        rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
        share = tf.reduce_sum(cross_entropies(logits, labels)) / rows
        ranks = label_ranks(logits, labels)
        found = {f"top{k}": tf.reduce_sum(tf.cast(ranks < k, tf.float32)) / rows for k in (1, 5)}
        return share, found

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        del step
        if not self.classifier_decay:
            return gradients
        kernel, _ = self.networks["probe"].variables
        return [
            gradient + self.classifier_decay * variable if variable is kernel else gradient
            for variable, gradient in zip(self.networks.trainable_variables, gradients, strict=True)
        ]

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        del global_batch
        if not self.classifier_decay:
            return {}
        return {"classifier": f"its kernel decayed by {self.classifier_decay:g} in the loss"}

    def expected(self, global_batch: int) -> tuple[float, float]:
        return math.log(self.num_classes), 0.0

    @property
    def num_classes(self) -> int:
        """Number of classes to tell apart."""
        return self.networks["probe"].output.shape[-1]

    def exported(self) -> Mapping[str, keras.Model]:
        """Returns the encoder, and everything on top of it as one classifier."""
        encoder, *head, classifier = self.networks.values()
        if not head:
            return {"encoder": encoder, "classifier": classifier}
        projections = head[0].output
        logits = classifier(last_projection(projections))
        joined = keras.Model(head[0].input, logits, name="classifier")
        return {"encoder": encoder, "classifier": joined}

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"cross-entropy {numbers['cross_entropy']:.3f} (chance {numbers['loss_chance']:.2f}), "
            f"top-1 {numbers['top1']:.1%}"
        )
