"""The cost of a step of several methods, beside the first one and beside their own networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from simclr_tf.benchmark.step import Step, one_batch, timed
from simclr_tf.benchmark.timing import Timing, median_and_range, take_turns
from simclr_tf.methods.base import Method
from simclr_tf.training.run import Run


def measure(runs: Mapping[str, Run], rounds: int) -> str:
    """Times the steps of recipes, each on one batch that is already on the device.

    Args:
      runs: name -> an assembled run; the others are compared with the first.
      rounds: how often each is timed.

    Returns:
      A table: images a second; the time of an image beside the first method's; the time of a step
      beside the passes of its networks, followers included, forward and where they learn backward;
      and the memory of all variables.
    """
    contestants, passes = {}, {name: f"passes of {name}" for name in runs}
    for name, run in runs.items():
        batch, images = one_batch(run), run.plan.global_batch_size
        contestants[name] = timed(run, run.train_step(), batch, images)
        contestants[passes[name]] = timed(run, _passes(run), batch, images)
    first = next(iter(runs))
    timings = {t.name: t for t in take_turns(contestants, rounds=rounds, baseline=first)}
    lines = [
        "| | images/s | time beside the first's | beside its networks' passes | variables (MiB) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, run in runs.items():
        step = timings[name]
        cells = [
            name,
            f"{step.rate:,.1f}",
            median_and_range(_times(step, timings[first]), ".2f"),
            median_and_range(_times(step, timings[passes[name]]), ".2f"),
            f"{_variables_mib(run):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _passes(run: Run) -> Step:
    """Returns a step of the networks alone: no loss, no metrics, no update."""
    method: Method = run.method
    weights = [v.value for v in method.networks.trainable_variables]

    def passes(batch):
        batch = run.pipeline.with_views(batch)
        targets = method.targets(batch)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            embedded = method.embed(batch, training=True)
            total = tf.add_n([tf.reduce_sum(e) for e in embedded.values()])
        return [g for g in tape.gradient(total, weights) if g is not None], targets

    return passes


def _times(timing: Timing, other: Timing) -> list[float]:
    """Returns how many times as long as the other one takes, of each round."""
    return [b / a for a, b in zip(timing.rates, other.rates, strict=True)]


def _variables_mib(run: Run) -> float:
    method = run.method
    networks = method.networks | method.followers | method.fixed
    kept = [*networks.variables, *method.state.values(), *run.optimizer.variables]
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in kept) / 2**20
