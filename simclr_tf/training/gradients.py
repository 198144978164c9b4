"""Gradients between the tape and the optimizer: summed over replicas, and measured."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.methods.base import Method
from simclr_tf.metrics import Metric
from simclr_tf.optim.lars import LARS
from simclr_tf.training.loss_scale import apply_scaled, loss_scale, rule_of, scale_metrics

GRADIENT_NORM = Metric("gradient_norm", "gradient norm", whole=True)
TRUST_METRICS = (
    Metric("trust_ratio_min", whole=True),
    Metric("trust_ratio_median", whole=True),
    Metric("trust_ratio_max", whole=True),
)


def gradient_metrics(optimizer: keras.optimizers.Optimizer) -> Sequence[Metric]:
    """Declares the metrics that `apply_shares` returns for this optimizer."""
    trust = TRUST_METRICS if isinstance(rule_of(optimizer), LARS) else ()
    return (GRADIENT_NORM, *trust, *scale_metrics(optimizer))


def take_summed(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes `optimizer` take gradients that are already summed over replicas.

    Keras sums them where the sums cannot be inspected, and has no switch to turn that off.

    Raises:
      RuntimeError: this version of Keras sums them elsewhere, so they would be summed twice.
    """
    rule = rule_of(optimizer)
    if not hasattr(rule, "_all_reduce_sum_gradients"):
        raise RuntimeError(
            "Keras' optimizers must sum gradients in _all_reduce_sum_gradients. Received: "
            f"Keras {keras.__version__}, which does not. Install a version that setup.py names."
        )
    rule._all_reduce_sum_gradients = list


def apply_shares(
    method: Method,
    optimizer: keras.optimizers.Optimizer,
    shares: Sequence[tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Sums this replica's shares of the gradients over replicas, and applies the sums.

    Args:
      method: the method that is trained.
      optimizer: built for its trainable variables, and prepared by `take_summed`.
      shares: this replica's share of each variable's gradient, times `loss_scale(optimizer)`.

    Returns:
      `gradient_metrics(optimizer)`, float32 scalars, equal on all replicas. "gradient_norm": norm
      of all gradients as one vector. "trust_ratio_min", "_median", "_max": over the variables that
      LARS adapts. All are 0 where float16 overflowed and the update was skipped, see
      `apply_scaled`.
    """
    scaled = collectives.all_reduce_sum(list(shares))
    scale = loss_scale(optimizer)
    gradients = [gradient / scale for gradient in scaled]
    numbers = {"gradient_norm": tf.linalg.global_norm(gradients)}
    rule = rule_of(optimizer)
    transformed = method.transform_gradients(rule.iterations, gradients)
    if transformed is not gradients:
        gradients = transformed
        scaled = [gradient * scale for gradient in gradients]
    if isinstance(rule, LARS):
        ratios = rule.trust_ratios(gradients)
        values = (tf.reduce_min(ratios), _median(ratios), tf.reduce_max(ratios))
        numbers |= dict(zip([m.name for m in TRUST_METRICS], values, strict=True))
    applied = apply_scaled(optimizer, scaled, method.networks.trainable_variables)
    if applied:
        done = applied["skipped_updates"] == 0
        numbers = {name: tf.where(done, value, 0.0) for name, value in numbers.items()}
    return numbers | applied


def _median(values: tf.Tensor) -> tf.Tensor:
    """Returns the median of a few values [n], by counting how many are smaller than each."""
    places = tf.range(values.shape[0])
    before = values < values[:, tf.newaxis]
    before |= (values == values[:, tf.newaxis]) & (places < places[:, tf.newaxis])
    ranks = tf.reduce_sum(tf.cast(before, tf.int32), axis=1)
    middle = ((values.shape[0] - 1) // 2, values.shape[0] // 2)
    return sum(tf.reduce_sum(tf.where(ranks == rank, values, 0.0)) for rank in middle) / 2.0
