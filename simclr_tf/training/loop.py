"""The inner loop: many steps inside one tf.function, so that calls from the host are rare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_HOST = "/device:CPU:0"


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """Result of several consecutive steps.

    Attributes:
      metrics: mean of each of the step's numbers over the steps.
      first_bad: how many steps went well before the first with a number that is not
        finite, or None.
      host_wait: seconds that the devices waited for data: for each step, from the end of the
        previous one.
    """

    metrics: dict[str, float]
    first_bad: int | None
    host_wait: float

    @classmethod
    def of(cls, names: Sequence[str], numbers: np.ndarray, host_wait: float) -> LoopResult:
        """Returns the result of steps with these numbers, [steps, len(names)]."""
        bad = ~np.isfinite(numbers).all(axis=1)
        means = numbers.astype(np.float64).mean(axis=0)
        return cls(
            metrics={name: float(mean) for name, mean in zip(names, means, strict=True)},
            first_bad=int(bad.argmax()) if bad.any() else None,
            host_wait=host_wait,
        )


RunSteps = Callable[[int], LoopResult]


def make_loop(
    strategy: tf.distribute.Strategy,
    train_step: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    names: Sequence[str],
) -> Callable[[Iterator, int], LoopResult]:
    """Builds `run_steps(iterator, num_steps)`; `names` are the names of the step's numbers.

    Conditions and loops on tensors in `train_step` must be TensorFlow's own (`tf.cond`,
    `tf.while_loop`): only this loop is converted by AutoGraph, which would otherwise take a large
    part of the tracing time.
    """
    train_step = tf.autograph.experimental.do_not_convert(train_step)

    @tf.function
    def steps(iterator, num_steps: tf.Tensor):
        # Otherwise the computation here would run on the device that TensorFlow prefers.
        with tf.device(_HOST):
            total = tf.zeros([len(names)])
            first_bad = tf.constant(-1)
            waited = tf.constant(0.0, tf.float64)
            for i in tf.range(num_steps):
                with tf.device(None):
                    batch = next(iterator)
                waited += _seconds_between(total, batch)
                with tf.device(None):
                    numbers = strategy.run(train_step, args=(batch,))
                # A GPU counts work as done once it is queued; only a copy waits for it.
                numbers = tf.identity(strategy.experimental_local_results(numbers)[0])
                bad = ~tf.reduce_all(tf.math.is_finite(numbers))
                first_bad = tf.where(bad & (first_bad < 0), i, first_bad)
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


def _seconds_between(total: tf.Tensor, batch: Any) -> tf.Tensor:
    """Returns the seconds from the end of the step before, which gave `total`, to the next batch.

    No GPU waits for these clocks: it receives a step while it is busy with the one before.
    """
    with tf.control_dependencies([total]):
        ended = tf.timestamp()
    with tf.control_dependencies([ended, *tf.nest.flatten(batch, expand_composites=True)]):
        return tf.timestamp() - ended
