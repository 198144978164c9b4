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
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training import figures, host_memory
from simclr_tf.training.checkpoints import Checkpoints, named_groups, write_text
from simclr_tf.training.diagnosis import Finding
from simclr_tf.training.interrupt import StopRequest, is_chief, make_agreement, spans_hosts
from simclr_tf.training.loop import LoopResult, make_loop
from simclr_tf.training.mishaps import steps_checked, writes_checked
from simclr_tf.training.ownership import exclusive
from simclr_tf.training.plan import plan_text
from simclr_tf.training.record import record_start
from simclr_tf.training.reporting import Reporter
from simclr_tf.training.stall import StallWarning

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
      keep_checkpoints: how many of the newest are kept.
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
    keep_checkpoints: int
    known_faults: Sequence[Finding] = ()
    diagnosis: Callable[[int, float, Numbers], Sequence[Finding]] = lambda step, epoch, numbers: ()

    @property
    def total_steps(self) -> int:
        return self.schedule.total_steps

    def epoch(self, step: int) -> float:
        """Passes over the data by the end of `step`."""
        return step * self.global_batch_size / self.pipeline.source.num_examples


def train(run: Training, export: Callable[[], str]) -> str | None:
    """Trains from where the model_dir is to the end, and exports while the folder is still its own.

    Returns:
      What `export` returns, or None where another host exports.

    Raises:
      RequestError: the model_dir belongs to another run, is in use or cannot be written, the data
        cannot be read, or too many images are bad.
      DivergedError: a number of a step, or a weight, is not finite.
      PreemptedError: stopped on request, after saving; or another host is gone.
    """
    trainer = _Trainer(run)
    if not trainer.is_chief:
        trainer.train()
        return None
    with exclusive(run.model_dir):
        trainer.train()
        with writes_checked(run.model_dir):
            return export()


class _Trainer:
    def __init__(self, run: Training):
        self.run = run
        self.is_chief = is_chief(run.strategy)
        self.checkpoints = Checkpoints(
            run.model_dir,
            named_groups(run.networks, run.optimizer),
            run.settings,
            recipe=config.in_force(),
            keep=run.keep_checkpoints,
            is_chief=self.is_chief,
        )

    def train(self) -> None:
        run, total = self.run, self.run.total_steps
        any_host = self._checked(make_agreement(run.strategy))
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
        run_steps = self._checked(run_steps)
        with writes_checked(run.model_dir):
            reporter = Reporter(
                run.model_dir,
                start_step=step,
                total_steps=total,
                words=run.words,
                is_chief=self.is_chief,
            )
            for finding in run.known_faults:
                reporter.warn(step, run.epoch(step), *finding)
        with StopRequest() as stop, StallWarning() as stall:
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
                stall.moved()
                if result.first_bad is not None:
                    self._stop_diverged(step + result.first_bad + 1)
                steps, step = goal - step, goal
                numbers = self._numbers(step, steps, seconds, result)
                epoch = run.epoch(step)
                with writes_checked(run.model_dir):
                    reporter.report(step, epoch, numbers, steps=steps, seconds=seconds)
                    for finding in run.diagnosis(step, epoch, numbers):
                        reporter.warn(step, epoch, *finding)
                stopping = any_host(stop.requested)
                if stopping or step % run.checkpoint_every_steps == 0 or step == total:
                    self._check_weights(step)
                    with writes_checked(run.model_dir):
                        self.checkpoints.save(step)
                run.pipeline.bad_images.check()
                if stopping and step < total:
                    raise PreemptedError(
                        f"Stopped on request at step {step} of {total}, which is saved in "
                        f"{run.model_dir}. The same command goes on from there."
                    )

    def _start(self, restored: int | None) -> int:
        """Says what will be done, and writes what a new run starts with; returns the step."""
        print(plan_text(self.run.plan), flush=True)
        views = None if restored else self._checked(figures.first_views)(self.run.pipeline)
        with writes_checked(self.run.model_dir):
            if restored is None:
                # First of all, so that a folder in which anything else lies has a checkpoint.
                self.checkpoints.save(0)
            write_text(os.path.join(self.run.model_dir, "config.gin"), config.record())
            record_start(
                self.run.model_dir,
                job=self.run.job,
                plan=self.run.plan,
                total_steps=self.run.total_steps,
                step=restored or 0,
            )
            if views is not None:
                figures.views(self.run.model_dir, views)
        if restored:
            print(f"going on from step {restored}", flush=True)
        return restored or 0

    def _checked(self, function: Callable) -> Callable:
        """The function, which runs steps or collectives, with `steps_checked` around it."""
        several_hosts = spans_hosts(self.run.strategy)

        def checked(*args):
            with (
                steps_checked(self.run.model_dir, several_hosts=several_hosts),
                self.run.pipeline.bad_images.explained(),
            ):
                return function(*args)

        return checked

    def _numbers(self, step: int, steps: int, seconds: float, result: LoopResult) -> Numbers:
        resident = host_memory.resident_mib()
        return result.metrics | {
            "loss_chance": self.run.chance,
            "learning_rate": float(self.run.schedule(step - 1)),
            "examples_per_second": steps * self.run.global_batch_size / seconds,
            # The clock of the inner loop is the system's, which may be set meanwhile.
            "host_wait": min(max(result.host_wait, 0.0) / seconds, 1.0),
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
            f"The loss, its gradient or a weight is not finite at step {step} of "
            f"{self.run.total_steps} (learning rate {float(self.run.schedule(step - 1)):.4g}). "
            f"Checkpoints from before it are in {self.run.model_dir}. Lower the base learning rate "
            "or lengthen the warm-up, and start in another --model_dir."
        )


def _next_multiple(step: int, length: int) -> int:
    return (step // length + 1) * length
