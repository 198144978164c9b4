"""Takes a run's steps on PJRT devices; TensorFlow lowers the step, and has data and checkpoints.

The host starts a step while the one before it runs, and the numbers of all steps are fetched at the
end of a call. So the devices never wait for the host, as in a loop of their own, but for data.
"""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from absl import logging

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.pjrt.client import value_of
from simclr_tf.distribute.pjrt.feed import Feed
from simclr_tf.distribute.pjrt.program import DeviceProgram, DeviceVariables, translated_errors
from simclr_tf.training.loop import LoopResult, RunSteps
from simclr_tf.training.lowered_step import batches_by_replica, lower_step
from simclr_tf.training.run import Run
from simclr_tf.training.stages import Stage


class PjrtRuntime:
    """The devices of a `PjrtStrategy`; see `Runtime`.

    Args:
      run: a run with such a strategy.
    """

    profiler = types.SimpleNamespace(
        start=jax.profiler.start_trace,
        stop=jax.profiler.stop_trace,
        Trace=jax.profiler.TraceAnnotation,
    )

    def __init__(self, run: Run):
        self._run = run
        self._devices = run.strategy.devices
        self._variables = DeviceVariables(self._devices)

    @contextmanager
    def stage(self, stage: Stage, step: int) -> Iterator[RunSteps]:
        program = self.compiled(stage.pipeline)
        feed = self.feed(stage.pipeline, step)
        names = [metric.name for metric in self._run.metrics]
        try:
            yield functools.partial(take_steps, program, feed, names)
        finally:
            feed.close()

    def bring_home(self) -> None:
        with translated_errors():
            self._variables.bring_home()

    def compiled(self, pipeline: ViewsPipeline) -> DeviceProgram:
        """Lowers and compiles the step of a stage with this input."""
        start = time.perf_counter()
        lowered = lower_step(self._run, pipeline)
        between = time.perf_counter()
        with translated_errors():
            program = DeviceProgram(lowered, self._devices, self._variables)
        logging.info(
            "step lowered in %.1f s, compiled or found in %.1f s; it takes %.0f MiB of a device",
            between - start,
            time.perf_counter() - between,
            program.device_bytes / 2**20,
        )
        return program

    def feed(self, pipeline: ViewsPipeline, step: int) -> Feed:
        """Starts to place the batches from `step` on."""
        return Feed(batches_by_replica(self._run, pipeline, step), self._devices)


def take_steps(program: DeviceProgram, feed: Feed, names: list[str], num_steps: int) -> LoopResult:
    """Takes the next steps, and fetches their numbers at the end.

    Args:
      program: the step.
      feed: its batches.
      names: the names of the step's numbers.
      num_steps: how many steps.
    """
    with translated_errors():
        taken: list[jax.Array] = []
        waited = 0.0
        for _ in range(num_steps):
            batch, seconds = feed.take(running=taken[-1] if taken else None)
            waited += seconds
            taken += program(batch)
            if len(taken) > 1:
                _await(taken[-2], feed)
        _await(taken[-1], feed)
        return LoopResult.of(names, np.stack([value_of(numbers) for numbers in taken]), waited)


def _await(numbers: jax.Array, feed: Feed) -> None:
    """Waits until a step has ended, whose batch then makes room for another."""
    numbers.block_until_ready()
    feed.release()
