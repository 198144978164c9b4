"""The outer loop of every training job: report, save, stop and go on; what is trained is given."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simclr_tf import config
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import host_slice
from simclr_tf.errors import DivergedError, PreemptedError
from simclr_tf.jobs.building import requests_checked
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training import figures, host_memory
from simclr_tf.training.checkpoints import Checkpoints, named_groups, write_text
from simclr_tf.training.interrupt import StopRequest, is_chief, make_agreement
from simclr_tf.training.loop import LoopResult, make_loop
from simclr_tf.training.reporting import Reporter

Numbers = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how long.

    Attributes:
      model_dir: the run's folder.
      strategy: whose replicas run it.
      plan: as printed before the first step.
      pipeline: what feeds it.
      networks: name -> what is saved.
      optimizer: built for them.
      schedule: of the learning rate, as long as the run.
      train_step: the replica function.
      metric_names: of its numbers; the first is the loss.
      chance: the loss of guessing, reported as `loss_chance`.
      words: a report's numbers -> what the progress line says of them.
      settings: what must not change when the run goes on.
      global_batch_size: images a step over all replicas.
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      keep_checkpoints: how many of the newest are kept.
      on_report: called with (step, epoch, numbers); for warnings.
    """

    model_dir: str
    strategy: tf.distribute.Strategy
    plan: str
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
    keep_checkpoints: int
    on_report: Callable[[int, float, Numbers], None] = lambda step, epoch, numbers: None

    @property
    def total_steps(self) -> int:
        return self.schedule.total_steps


def train(run: Training) -> bool:
    """Trains from where the model_dir is to the end; returns whether this process is the chief.

    Raises:
      RequestError: the model_dir belongs to another run, or too many images are bad.
      DivergedError: the loss or a weight is not finite.
      PreemptedError: stopped on request, after saving.
    """
    trainer = _Trainer(run)
    trainer.train()
    return trainer.is_chief


class _Trainer:
    def __init__(self, run: Training):
        self.run = run
        self.is_chief = is_chief(run.strategy)
        self.checkpoints = Checkpoints(
            run.model_dir,
            named_groups(run.networks, run.optimizer),
            run.settings,
            keep=run.keep_checkpoints,
            is_chief=self.is_chief,
        )

    def train(self) -> None:
        run, total = self.run, self.run.total_steps
        any_host = make_agreement(run.strategy)
        step = self.checkpoints.restore()
        any_host(False)  # no host writes before all have looked
        if self.is_chief:
            step = self._start(step)
        step = step or 0
        if step >= total:
            return
        batches = iter(
            run.strategy.distribute_datasets_from_function(
                lambda c: run.pipeline.dataset(host_slice(c, run.global_batch_size), step)
            )
        )
        run_steps = make_loop(run.strategy, run.train_step, tuple(run.metric_names))
        reporter = Reporter(
            run.model_dir,
            start_step=step,
            total_steps=total,
            words=run.words,
            is_chief=self.is_chief,
        )
        with StopRequest() as stop:
            while step < total:
                # Loops end on multiples of their length whatever the start, as do checkpoints.
                goal = min(
                    _next_multiple(step, run.steps_per_loop),
                    _next_multiple(step, run.checkpoint_every_steps),
                    total,
                )
                start = time.perf_counter()
                result = run_steps(batches, goal - step)
                seconds = time.perf_counter() - start
                if result.first_bad is not None:
                    self._stop_diverged(step + result.first_bad + 1)
                steps, step = goal - step, goal
                numbers = self._numbers(step, steps, seconds, result)
                epoch = step * run.global_batch_size / run.pipeline.source.num_examples
                reporter.report(step, epoch, numbers, steps=steps, seconds=seconds)
                run.on_report(step, epoch, numbers)
                stopping = any_host(stop.requested)
                if stopping or step % run.checkpoint_every_steps == 0 or step == total:
                    self._check_weights(step)
                    self.checkpoints.save(step)
                run.pipeline.bad_images.check()
                if stopping and step < total:
                    raise PreemptedError(
                        f"Stopped on request at step {step} of {total}, which is saved in "
                        f"{run.model_dir}. The same command goes on from there."
                    )

    def _start(self, restored: int | None) -> int:
        """Says what will be done, and writes what a new run starts with; returns the step."""
        print(self.run.plan, flush=True)
        views = None if restored else figures.first_views(self.run.pipeline)
        with requests_checked():
            if restored is None:
                # First of all, so that a folder in which anything else lies has a checkpoint.
                self.checkpoints.save(0)
            write_text(os.path.join(self.run.model_dir, "config.gin"), config.record())
            if views is not None:
                figures.views(self.run.model_dir, views)
        if restored:
            print(f"going on from step {restored}", flush=True)
        return restored or 0

    def _numbers(self, step: int, steps: int, seconds: float, result: LoopResult) -> Numbers:
        resident = host_memory.resident_mib()
        return result.metrics | {
            "loss_chance": self.run.chance,
            "learning_rate": float(self.run.schedule(step - 1)),
            "examples_per_second": steps * self.run.global_batch_size / seconds,
            "host_wait": min(result.host_wait / seconds, 1.0),
            "skipped_images": len(self.run.pipeline.bad_images),
            **({} if resident is None else {"host_memory_mib": resident}),
        }

    def _check_weights(self, step: int) -> None:
        """A checkpoint whose weights are not finite would be the newest one for ever."""
        variables = [v for network in self.run.networks.values() for v in network.variables]
        if not all(np.isfinite(v.numpy()).all() for v in variables):
            self._stop_diverged(step)

    def _stop_diverged(self, step: int) -> None:
        raise DivergedError(
            f"The loss or a weight is not finite at step {step} of {self.run.total_steps} "
            f"(learning rate {float(self.run.schedule(step - 1)):.4g}). Checkpoints from before it "
            f"are in {self.run.model_dir}. Lower the base learning rate or lengthen the warm-up, "
            "and start in another --model_dir."
        )


def _next_multiple(step: int, length: int) -> int:
    return (step // length + 1) * length
