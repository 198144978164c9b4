"""What takes a run's steps: the seam between the trainer and the two runtimes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import tensorflow as tf

from simclr_tf.distribute.pjrt.strategy import PjrtStrategy
from simclr_tf.distribute.strategy import host_slice
from simclr_tf.training.loop import RunSteps, make_loop
from simclr_tf.training.run import Run
from simclr_tf.training.stages import Stage


class Runtime(Protocol):
    """Takes steps, and has the current values of the variables meanwhile.

    Attributes:
      profiler: what profiles its devices, see `Profile`.
    """

    profiler: Any

    def stage(self, stage: Stage, step: int) -> AbstractContextManager[RunSteps]:
        """Feeds and compiles the steps of a stage from `step` on.

        While open, `run_steps(n)` takes the next n steps. The variables of TensorFlow must have
        their values when the first stage is opened.
        """

    def bring_home(self) -> None:
        """Gives TensorFlow's variables the values of after the last step."""


class TensorFlowRuntime:
    """The replicas of a tf.distribute strategy, whose variables are always current."""

    profiler = tf.profiler.experimental

    def __init__(self, run: Run):
        self._run = run

    @contextmanager
    def stage(self, stage: Stage, step: int) -> Iterator[RunSteps]:
        run, pipeline = self._run, stage.pipeline
        batches = iter(
            run.strategy.distribute_datasets_from_function(
                lambda c: pipeline.dataset(host_slice(c, run.plan.global_batch_size), step)
            )
        )
        names = [metric.name for metric in run.metrics]
        loop = make_loop(run.strategy, run.train_step(pipeline), names)
        yield functools.partial(loop, batches)

    def bring_home(self) -> None:
        pass


def runtime_of(run: Run) -> Runtime:
    """Returns what takes the steps of a run, by its strategy."""
    if isinstance(run.strategy, PjrtStrategy):
        from simclr_tf.training.pjrt import PjrtRuntime  # which imports jax

        return PjrtRuntime(run)
    return TensorFlowRuntime(run)
