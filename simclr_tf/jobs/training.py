"""What a training job gives the outer loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.diagnosis import Finding

Numbers = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how long.

    Attributes:
      model_dir: the run's folder.
      strategy: whose replicas run it.
      job: what is trained, for the record.
      plan: as printed before the first step, by subject.
      pipeline: what feeds it.
      networks: name -> what is saved.
      optimizer: built for them.
      schedule: of the learning rate, as long as the run.
      train_step: the replica function.
      metric_names: of its numbers.
      chance: the loss of guessing, reported as `loss_chance`.
      words: a report's numbers -> what the progress line says of them.
      settings: what must not change when the run goes on.
      global_batch_size: images a step over all replicas.
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      checkpoint_every_minutes: after which the next report is followed by a checkpoint, or None.
      keep_checkpoints: how many of the newest are kept.
      profile_steps: (start, stop) of the steps to profile, or None.
      known_faults: what is wrong before the first step.
      diagnosis: called with (step, epoch, numbers) of every report; what is wrong.
    """

    model_dir: str
    strategy: tf.distribute.Strategy
    job: str
    plan: Mapping[str, str]
    pipeline: ViewsPipeline
    networks: Mapping[str, keras.Model]
    optimizer: keras.optimizers.Optimizer
    schedule: WarmupCosine
    train_step: Callable[[dict[str, tf.Tensor]], tf.Tensor]
    metric_names: Sequence[str]
    chance: float
    words: Callable[[Numbers], str]
    settings: Mapping[str, Any]
    global_batch_size: int
    steps_per_loop: int
    checkpoint_every_steps: int
    checkpoint_every_minutes: float | None
    keep_checkpoints: int
    profile_steps: tuple[int, int] | None = None
    known_faults: Sequence[Finding] = ()
    diagnosis: Callable[[int, float, Numbers], Sequence[Finding]] = lambda step, epoch, numbers: ()

    @property
    def total_steps(self) -> int:
        return self.schedule.total_steps

    def epoch(self, step: int) -> float:
        """Passes over the data by the end of `step`."""
        return step * self.global_batch_size / self.pipeline.source.num_examples
