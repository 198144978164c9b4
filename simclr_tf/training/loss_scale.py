"""Dynamic loss scaling, without which small gradients are zero in float16.

Keras' `LossScaleOptimizer` stands around the update rule: it doubles the scale after 2,000 updates,
and where a gradient overflows it skips the update and halves the scale. It takes gradients that are
summed over replicas, so that all replicas find the same. What it stands around sees gradients of
the plain loss. Other precisions have no such optimizer, and their loss is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.metrics import Metric

SCALE_METRICS = (Metric("loss_scale", whole=True), Metric("skipped_updates", whole=True))
# Whoever overflows without being scaled diverges.
_FLOOR = 1.0


def with_loss_scale(
    rule: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], precision: str
) -> keras.optimizers.Optimizer:
    """The optimizer of a run in `precision`, made under the strategy's scope.

    Args:
      rule: updates the variables; built.
      variables: that it was built for.
      precision: Keras dtype policy of the networks; `mixed_float16` needs loss scaling.
    """
    if precision != "mixed_float16":
        return rule
    optimizer = keras.optimizers.LossScaleOptimizer(rule)
    optimizer.build(variables)
    return optimizer


def rule_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """What updates the variables, without the loss scaling around it."""
    return optimizer.inner_optimizer if _scales(optimizer) else optimizer


def loss_scale(optimizer: keras.optimizers.Optimizer) -> tf.Tensor | float:
    """What the loss is multiplied by before its gradient is taken."""
    return tf.convert_to_tensor(optimizer.dynamic_scale) if _scales(optimizer) else 1.0


def loss_scale_group(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """The variables of the scaling, by names that do not change; none where nothing is scaled."""
    if not _scales(optimizer):
        return {}
    return {"scale": optimizer.dynamic_scale, "updates_since": optimizer.step_counter}


def scale_metrics(optimizer: keras.optimizers.Optimizer) -> Sequence[Metric]:
    """Declares what `apply_scaled` tells."""
    return SCALE_METRICS if _scales(optimizer) else ()


def apply_scaled(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
) -> dict[str, tf.Tensor]:
    """Applies gradients of `loss_scale(optimizer)` times the loss, summed over replicas.

    Returns:
      `scale_metrics(optimizer)`, float32 scalars. "loss_scale": of this step. "skipped_updates": 1
      where a gradient is not finite, so that no variable has changed, else 0; NaN where a scale
      that is no more than 1 was not the cause.
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
