"""A training run that is assembled and has not touched its folder yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.errors import RequestError
from simclr_tf.methods.base import Method
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks
from simclr_tf.optim.schedules import RunSchedule
from simclr_tf.training.checkpoint_variables import PROBE_GROUP
from simclr_tf.training.checkpoints import Groups, named_groups
from simclr_tf.training.plan import Plan
from simclr_tf.training.probe import OnlineProbe
from simclr_tf.training.stages import Stage
from simclr_tf.training.step import make_train_step, step_metrics
from simclr_tf.training.weight_average import WeightAverage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often a run reports and saves; none of it changes what is learned.

    Attributes:
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      checkpoint_every_minutes: a report this long after the last checkpoint is followed by a
        checkpoint too; None turns that off.
      keep_checkpoints: how many of the newest are kept.
      profile_steps: (start, stop) of the steps to profile, or None.
    """

    steps_per_loop: int
    checkpoint_every_steps: int
    checkpoint_every_minutes: float | None
    keep_checkpoints: int
    profile_steps: tuple[int, int] | None = None


def check_limits(job: str, cadence: Cadence, seed: int, global_batch_size: int) -> None:
    """Raises RequestError, with the name of the job's parameter, for a value out of its range."""
    counts = {
        "global_batch_size": global_batch_size,
        "steps_per_loop": cadence.steps_per_loop,
        "checkpoint_every_steps": cadence.checkpoint_every_steps,
        "keep_checkpoints": cadence.keep_checkpoints,
    }
    for name, value in counts.items():
        if value < 1:
            raise RequestError(f"{job}.{name} must be at least 1. Received: {value}.")
    minutes = cadence.checkpoint_every_minutes
    if minutes is not None and not minutes > 0:
        raise RequestError(
            f"{job}.checkpoint_every_minutes must be more than 0, or None. Received: {minutes}."
        )
    check_seed(job, seed)


def check_seed(job: str, seed: int) -> None:
    """Raises RequestError unless `seed` can seed random numbers."""
    if not 0 <= seed < 2**32:
        raise RequestError(f"{job}.seed must be from 0 to 2**32 - 1. Received: {seed}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The trained method, its data and its length.

    Attributes:
      job: the job's name, for the record.
      model_dir: the run's folder.
      strategy: its replicas run the steps.
      plan: the run's numbers.
      method: the method that is trained.
      probe: the online probe, or None.
      average: the moving average of the method's networks, or None.
      optimizer: built for the method's variables.
      schedule: learning rate schedule over the whole run.
      settings: what must not change when the run is resumed.
      cadence: how often it reports and saves.
      rebuild: builds the method again, with any initial values, for the export.
      initialize: called once every start, before the first step, with whether the run is new: fills
        the networks of a new run, and returns the plan's lines on where their values come from.
      when_out_of_memory: what a person should set if a step does not fit into memory.
      when_length_differs: how to train longer than the run was planned for.
    """

    job: str
    model_dir: str
    strategy: tf.distribute.Strategy
    plan: Plan
    method: Method
    probe: OnlineProbe | None
    average: WeightAverage | None = None
    optimizer: keras.optimizers.Optimizer
    schedule: RunSchedule
    settings: Mapping[str, Any]
    cadence: Cadence
    rebuild: Callable[[], Method]
    when_out_of_memory: str
    when_length_differs: str = ""
    initialize: Callable[[bool], Mapping[str, str]] = lambda is_new: {}

    @property
    def total_steps(self) -> int:
        return self.schedule.total_steps

    @property
    def stages(self) -> Sequence[Stage]:
        """Its stages, each with its input, in order."""
        return self.plan.stages

    @property
    def pipeline(self) -> ViewsPipeline:
        """The input of the last stage, whose views have their full size."""
        return self.stages[-1].pipeline

    @property
    def trained(self) -> Networks:
        """All networks that learn: the method's, and the probe."""
        return self.method.networks | (self.probe.networks if self.probe else Networks({}))

    @property
    def chance(self) -> float | None:
        """The loss of guessing, if it is known."""
        expected = self.method.expected(self.plan.global_batch_size)
        return None if expected is None else expected[0]

    @property
    def metrics(self) -> Sequence[Metric]:
        """The numbers of a step, in their order."""
        return step_metrics(self.method, self.optimizer, self.probe)

    def train_step(
        self, pipeline: ViewsPipeline | None = None
    ) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        """Builds the replica function of the stage with this input, by default of the last."""
        return make_train_step(
            self.method,
            self.optimizer,
            probe=self.probe,
            average=self.average,
            num_microbatches=self.plan.num_microbatches,
            views=(pipeline or self.pipeline).with_views,
        )

    def groups(self) -> Groups:
        """Returns the variables of a checkpoint by group and path."""
        networks = self.trained | self.method.followers
        if self.average is not None:
            networks |= self.average.networks
        state = {"method": self.method.state} if self.method.state else {}
        watching = {PROBE_GROUP: self.probe.state} if self.probe else {}
        return {**named_groups(networks, self.optimizer), **state, **watching}

    def plan_lines(self) -> dict[str, str]:
        """Returns the plan in words, by subject."""
        lines = self.method.plan_lines(self.plan.global_batch_size)
        probe = {"probe": self.probe.words()} if self.probe else {}
        return self.plan.lines(self.method.networks, lines) | probe

    def epoch(self, step: int) -> float:
        """Returns passes over the data by the end of `step`."""
        return step * self.plan.global_batch_size / self.plan.source.num_examples
