"""The inner loop: many steps inside one tf.function, so that the host is asked seldom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """What some steps in a row came to.

    Attributes:
      metrics: mean of each of the step's numbers over the steps.
      first_bad: how many steps went well before the first with a number that is not
        finite, or None.
      host_wait: seconds spent waiting for data.
    """

    metrics: dict[str, float]
    first_bad: int | None
    host_wait: float


def make_loop(
    strategy: tf.distribute.Strategy,
    train_step: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    names: tuple[str, ...],
) -> Callable[[Iterator, int], LoopResult]:
    """Builds `run_steps(iterator, num_steps)`; `names` are those of the step's numbers.

    Conditions and loops on tensors in `train_step` must be TensorFlow's own (`tf.cond`,
    `tf.while_loop`): AutoGraph, which would take a large part of the time of tracing, reads this
    loop alone.
    """
    train_step = tf.autograph.experimental.do_not_convert(train_step)

    @tf.function
    def steps(iterator, num_steps: tf.Tensor):
        total = tf.zeros([len(names)])
        first_bad = tf.constant(-1)
        waited = tf.constant(0.0, tf.float64)
        for i in tf.range(num_steps):
            # The clock is read only once the step before has ended, and again when data is there.
            with tf.control_dependencies([total]):
                before = tf.timestamp()
            with tf.control_dependencies([before]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                waited += tf.timestamp() - before
            numbers = strategy.run(train_step, args=(batch,))
            numbers = strategy.experimental_local_results(numbers)[0]
            if first_bad < 0 and not tf.reduce_all(tf.math.is_finite(numbers)):
                first_bad = i
            total += numbers
        return total / tf.cast(num_steps, tf.float32), first_bad, waited

    def run_steps(iterator: Iterator, num_steps: int) -> LoopResult:
        means, first_bad, waited = steps(iterator, tf.constant(num_steps))
        bad = int(first_bad)
        return LoopResult(
            metrics={name: float(v) for name, v in zip(names, means.numpy(), strict=True)},
            first_bad=None if bad < 0 else bad,
            host_wait=float(waited),
        )

    return run_steps
