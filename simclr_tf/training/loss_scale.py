"""Dynamic loss scaling, without which small gradients are zero in float16.

Keras' `LossScaleOptimizer` wraps the update rule: it doubles the scale after 2,000 updates, and
where a gradient overflows it skips the update and halves the scale. It takes gradients that are
summed over replicas, so that all replicas decide the same. The wrapped rule sees gradients of the
plain loss. Other precisions have no such optimizer, and their loss is not scaled.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.metrics import Metric

SCALE_METRICS = (Metric("loss_scale", whole=True), Metric("skipped_updates", whole=True))
# An overflow at a scale this low means that training has diverged.
_FLOOR = 1.0


def with_loss_scale(
    rule: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], precision: str
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a run in `precision`, made under the strategy's scope.

    Args:
      rule: the update rule of the variables; built.
      variables: the variables that it was built for.
      precision: Keras dtype policy of the networks; `mixed_float16` needs loss scaling.
    """
    if precision != "mixed_float16":
        return rule
    optimizer = keras.optimizers.LossScaleOptimizer(rule)
    optimizer.build(variables)
    return optimizer


def rule_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the update rule of the variables, without the loss scaling around it."""
    return optimizer.inner_optimizer if _scales(optimizer) else optimizer


def loss_scale(optimizer: keras.optimizers.Optimizer) -> tf.Tensor | float:
    """Returns the factor by which the loss is multiplied before its gradient is taken."""
    return tf.convert_to_tensor(optimizer.dynamic_scale) if _scales(optimizer) else 1.0


def loss_scale_group(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Returns the scaling's variables under stable names; none if nothing is scaled."""
    if not _scales(optimizer):
        return {}
    return {"scale": optimizer.dynamic_scale, "updates_since": optimizer.step_counter}


def scale_metrics(optimizer: keras.optimizers.Optimizer) -> Sequence[Metric]:
    """Declares the metrics that `apply_scaled` returns."""
    return SCALE_METRICS if _scales(optimizer) else ()


def apply_scaled(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
) -> dict[str, tf.Tensor]:
    """Applies gradients of `loss_scale(optimizer)` times the loss, summed over replicas.

    Returns:
      `scale_metrics(optimizer)`, float32 scalars. "loss_scale": scale of this step.
      "skipped_updates": 1 if a gradient is not finite, so that no variable has changed, else 0; NaN
      if the cause was not the scale, since that is at most 1.
    """
    numbers = {}
    if _scales(optimizer):
        scale = loss_scale(optimizer)
        skipped = tf.where(scale > _FLOOR, 1.0, float("nan"))
        skipped = tf.where(optimizer.check_finite(gradients), 0.0, skipped)
        numbers = {"loss_scale": scale, "skipped_updates": skipped}
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return numbers


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
