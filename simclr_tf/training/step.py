"""One training step: the work of every replica on its part of the global batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.methods import contract
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.metrics import Metric
from simclr_tf.training.gradients import apply_shares, gradient_metrics, take_summed
from simclr_tf.training.loss_scale import loss_scale, rule_of
from simclr_tf.training.microbatch import gradients_in_microbatches
from simclr_tf.training.probe import PROBE_METRICS, OnlineProbe
from simclr_tf.training.representation import (
    REPRESENTATION_METRICS,
    direction_sums,
    representation_numbers,
)
from simclr_tf.training.weight_average import WeightAverage

Views = Callable[[Tensors], Tensors]


def step_metrics(
    method: Method, optimizer: keras.optimizers.Optimizer, probe: OnlineProbe | None = None
) -> Sequence[Metric]:
    """Declares a step's numbers in their order: those with shares first."""
    declared = (
        Metric("loss"),
        *method.metrics,
        *REPRESENTATION_METRICS,
        *(PROBE_METRICS if probe else ()),
        *gradient_metrics(optimizer),
    )
    return sorted(declared, key=lambda metric: metric.whole)


def make_train_step(
    method: Method,
    optimizer: keras.optimizers.Optimizer,
    *,
    probe: OnlineProbe | None = None,
    average: WeightAverage | None = None,
    num_microbatches: int = 1,
    views: Views = lambda batch: batch,
) -> Callable[[Tensors], tf.Tensor]:
    """Builds the replica function.

    Every replica's loss is its share of the global loss, so that the sum of the replicas' gradients
    is the gradient of the global batch.

    Args:
      method: the method that is trained; built, as are `optimizer` and `probe`, under the
        strategy's scope.
      optimizer: applies the summed gradients; from now on it does not sum them itself.
      probe: the online probe, or None. It watches the encoder of before the step.
      average: the moving average of the method's networks, or None.
      num_microbatches: parts of a replica's batch, which they must divide, that are processed one
        after the other, so that memory holds the activations of one part. The loss remains that of
        the whole batch.
      views: a batch, or some examples' rows of each of its tensors -> the batch with the views
        that the method asks for, float32. This is the augmentation that runs on the device.

    Returns:
      A function that maps a batch, {'labels': [B]} and the inputs of `views`, to the numbers of
      `step_metrics` over the global batch, float32 [n], equal on every replica. For a probe the
      batch has 'plain_images' and 'plain_labels' too.
    """
    take_summed(optimizer)
    metrics = step_metrics(method, optimizer, probe)

    def train_step(batch: Tensors) -> tf.Tensor:
        scale = loss_scale(optimizer)
        batch = dict(batch)
        plain = [batch.pop(name) for name in ("plain_images", "plain_labels") if name in batch]
        observed = probe.watch(*plain) if probe else {}
        if num_microbatches == 1:
            numbers, gradients, inputs = gradients_at_once(method, views(batch), scale)
        else:
            numbers, gradients, inputs = gradients_in_microbatches(
                method, batch, num_microbatches, views, scale
            )
        numbers |= observed | apply_shares(method, optimizer, gradients)
        method.after_update(rule_of(optimizer).iterations, inputs)
        if average is not None:
            average.update(rule_of(optimizer).iterations)
        numbers["loss"] = numbers[method.metrics[0].name] + numbers.get("probe_loss", 0.0)
        shares = tf.stack([numbers[metric.name] for metric in metrics if not metric.whole])
        whole = tf.stack([numbers[metric.name] for metric in metrics if metric.whole])
        return tf.concat([collectives.all_reduce_sum(shares), whole], axis=0)

    return train_step


def gradients_at_once(
    method: Method, batch: Tensors, scale: tf.Tensor | float = 1.0
) -> tuple[Tensors, list[tf.Tensor], Tensors]:
    """Returns this replica's shares of numbers and of all gradients, and the inputs of the loss.

    The gradients, but not the numbers, are multiplied by `scale`.
    """
    targets = method.targets(batch)
    with tf.GradientTape() as tape:
        representation, embedded = contract.embed(method, batch)
        loss, numbers = contract.loss(method, embedded, targets)
        scaled = loss * scale
    variables = method.networks.trainable_variables
    gradients = tape.gradient(scaled, [v.value for v in variables])
    spread = representation_numbers(direction_sums(representation), representation.shape[0])
    return (
        {method.metrics[0].name: loss} | numbers | spread,
        gradients,
        contract.inputs(method, embedded, targets),
    )
