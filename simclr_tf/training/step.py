"""One training step: what every replica does with its part of the global batch."""

from __future__ import annotations

import operator
from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.models.simclr import SimCLR, forward
from simclr_tf.training.gradients import apply_shares, gradient_metrics, take_summed
from simclr_tf.training.loss_scale import loss_scale
from simclr_tf.training.microbatch import gradients_in_microbatches
from simclr_tf.training.probe import PROBE_METRICS, probe_numbers
from simclr_tf.training.representation import (
    REPRESENTATION_METRICS,
    direction_sums,
    representation_numbers,
)

METRICS = (
    "loss",
    "contrastive_loss",
    "contrastive_top1",
    "contrastive_top5",
    "positive_cosine",
    "negative_cosine",
    "embedding_std",
    "effective_rank",
    "temperature",
    *REPRESENTATION_METRICS,
)


def metric_names(simclr: SimCLR, optimizer: keras.optimizers.Optimizer) -> tuple[str, ...]:
    """The names of a step's numbers, in their order."""
    return _shared_metrics(simclr) + gradient_metrics(optimizer)


def make_train_step(
    simclr: SimCLR,
    optimizer: keras.optimizers.Optimizer,
    contrastive_loss: Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]],
    num_microbatches: int = 1,
    views: Callable[[dict[str, tf.Tensor]], tf.Tensor] = operator.itemgetter("images"),
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Builds the replica function.

    Every replica's loss is its share of the global loss, so that the sum of the replicas' gradients
    is the gradient of the global batch.

    Args:
      simclr: the models; built, as is `optimizer`, under the strategy's scope.
      optimizer: applies the summed gradients; from now on it sums none itself.
      contrastive_loss: projections of this replica -> (its share of the loss, shares of metrics).
      num_microbatches: parts that a replica's batch, which they must divide, is worked off in, to
        have the activations of one part in memory. The loss remains that of the whole batch.
      views: a batch, or of each of its tensors the rows of some examples -> the images of view 1
        and then of view 2, float32 [2B, H, W, C]. What of the augmentation runs on the device.

    Returns:
      A function of a batch, {'labels': [B]} and what `views` takes, to the step's numbers over the
      global batch, float32 [len(metric_names(simclr, optimizer))], equal on every replica.
    """
    take_summed(optimizer)

    def train_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        scale = loss_scale(optimizer)
        if num_microbatches == 1:
            made = {"images": views(batch), "labels": batch["labels"]}
            numbers, gradients = gradients_at_once(simclr, contrastive_loss, made, scale)
        else:
            numbers, gradients = gradients_in_microbatches(
                simclr, contrastive_loss, batch, num_microbatches, views, scale
            )
        applied = apply_shares(simclr, optimizer, gradients)
        numbers["loss"] = numbers["contrastive_loss"] + numbers.get("probe_loss", 0.0)
        shares = tf.stack([numbers[name] for name in _shared_metrics(simclr)])
        of_gradients = tf.stack([applied[name] for name in gradient_metrics(optimizer)])
        return tf.concat([collectives.all_reduce_sum(shares), of_gradients], axis=0)

    return train_step


def gradients_at_once(
    simclr: SimCLR,
    contrastive_loss: Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]],
    batch: dict[str, tf.Tensor],
    scale: tf.Tensor | float = 1.0,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """This replica's shares of the step's numbers, and of all trainable variables' gradients.

    The gradients, and no number, are those of `scale` times the loss.
    """
    with tf.GradientTape() as tape:
        outputs = forward(simclr, batch["images"], training=True)
        contrastive, numbers = contrastive_loss(outputs.projection)
        probe = probe_numbers(outputs.probe_logits, batch["labels"])
        loss = (contrastive + probe.get("probe_loss", 0.0)) * scale
    gradients = tape.gradient(loss, [v.value for v in simclr.trainable_variables])
    h = outputs.representation
    numbers |= representation_numbers(direction_sums(h), h.shape[0])
    return {"contrastive_loss": contrastive} | numbers | probe, gradients


def _shared_metrics(simclr: SimCLR) -> tuple[str, ...]:
    """What the replicas have shares of."""
    return METRICS + (PROBE_METRICS if simclr.probe else ())
