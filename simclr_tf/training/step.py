"""One training step: what every replica does with its part of the global batch."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.models.simclr import SimCLR, forward
from simclr_tf.training.classification import cross_entropies

METRICS = (
    "loss",
    "contrastive_loss",
    "contrastive_top1",
    "contrastive_top5",
    "positive_cosine",
    "negative_cosine",
    "embedding_std",
)
PROBE_METRICS = ("probe_loss", "probe_accuracy")


def metric_names(simclr: SimCLR) -> tuple[str, ...]:
    """The names of a step's numbers, in their order."""
    return METRICS + (PROBE_METRICS if simclr.probe else ())


def make_train_step(
    simclr: SimCLR,
    optimizer: keras.optimizers.Optimizer,
    contrastive_loss: Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]],
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Builds the replica function.

    Every replica's loss is its share of the global loss, so that the optimizer, which sums
    gradients over replicas, takes the gradient of the global batch.

    Args:
      simclr: the models; built, as is `optimizer`, under the strategy's scope.
      optimizer: applies and sums the gradients.
      contrastive_loss: projections of this replica -> (its share of the loss, shares of metrics).

    Returns:
      A function of {'images': [2B, H, W, C], 'labels': [B]} to the step's numbers over the global
      batch, float32 [len(metric_names(simclr))], equal on every replica.
    """

    def train_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = forward(simclr, batch["images"], training=True)
            contrastive, numbers = contrastive_loss(outputs.projection)
            numbers = {"contrastive_loss": contrastive} | numbers
            loss = contrastive
            if simclr.probe:
                probe_loss, accuracy = _probe_loss(outputs.probe_logits, batch["labels"])
                numbers |= {"probe_loss": probe_loss, "probe_accuracy": accuracy}
                loss += probe_loss
        variables = simclr.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        numbers["loss"] = loss
        return collectives.all_reduce_sum(tf.stack([numbers[n] for n in metric_names(simclr)]))

    return train_step


def _probe_loss(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """This replica's share of the probe's mean cross-entropy and accuracy over both views.

    An image whose label is unknown (-1) counts as a loss of zero and as not recognized.
    """
    labels = tf.concat([labels, labels], axis=0)
    rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
    losses = cross_entropies(logits, labels)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    accuracy = tf.reduce_sum(tf.cast(found == labels, tf.float32)) / rows
    return tf.reduce_sum(losses) / rows, accuracy
