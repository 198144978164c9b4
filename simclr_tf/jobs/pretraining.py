"""Pretraining that has been put together: what it consists of, and how it is run to its end."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from simclr_tf import config
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import host_slice
from simclr_tf.errors import DivergedError, PreemptedError
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import build_for_export, requests_checked
from simclr_tf.models.simclr import SimCLR
from simclr_tf.objectives.nt_xent import loss_chance
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training import figures
from simclr_tf.training.checkpoints import Checkpoints, named_groups, write_text
from simclr_tf.training.interrupt import StopRequest, is_chief, make_agreement
from simclr_tf.training.loop import make_loop
from simclr_tf.training.plan import Plan
from simclr_tf.training.reporting import Reporter, Watch
from simclr_tf.training.step import make_train_step, metric_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A run that has been put together, and has not touched its model_dir yet.

    Attributes:
      context: what the command line says.
      strategy: whose replicas run it.
      plan: its numbers.
      pipeline: what feeds it.
      simclr: the models.
      optimizer: built for them.
      schedule: of the learning rate.
      loss: projections -> (this replica's share of the loss, of metrics).
      encoder: builds the encoder anew, from `image_size`.
      projection_head: builds the projection head anew, from `input_dim`.
      settings: what must not change when the run goes on.
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      keep_checkpoints: how many of the newest checkpoints are kept.
    """

    context: Context
    strategy: tf.distribute.Strategy
    plan: Plan
    pipeline: ViewsPipeline
    simclr: SimCLR
    optimizer: keras.optimizers.Optimizer
    schedule: WarmupCosine
    loss: Callable[..., tuple]
    encoder: Callable[..., keras.Model]
    projection_head: Callable[..., keras.Model]
    settings: dict
    steps_per_loop: int
    checkpoint_every_steps: int
    keep_checkpoints: int

    def train_step(self) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        """The replica function."""
        return make_train_step(self.simclr, self.optimizer, self.loss)


def train_and_export(run: Pretraining) -> str:
    """Trains to the end of the plan, and exports the networks.

    Returns:
      The folder of the SavedModel; empty where another host exports.
    """
    trainer = _Trainer(run)
    trainer.train()
    if not trainer.is_chief:
        return ""
    model_dir, image_size = run.context.model_dir, run.plan.image_size
    groups = run.simclr.groups()
    folder = export_networks(
        model_dir,
        run.plan.total_steps,
        {name: groups[name] for name in ("encoder", "projection_head")},
        lambda: build_for_export(run.encoder, run.projection_head, image_size),
        image_size=image_size,
        recipe=config.record(),
    )
    figures.curves(model_dir)
    print(f"encoder: {folder}\nfigures: {os.path.join(model_dir, 'figures')}", flush=True)
    return folder


class _Trainer:
    """Runs what has been put together."""

    def __init__(self, run: Pretraining):
        self.run = run
        self.plan = run.plan
        self.model_dir = run.context.model_dir
        self.is_chief = is_chief(run.strategy)
        self.checkpoints = Checkpoints(
            self.model_dir,
            named_groups(run.simclr.groups(), run.optimizer),
            run.settings,
            keep=run.keep_checkpoints,
            is_chief=self.is_chief,
        )

    def train(self) -> None:
        """Trains from where the model_dir is to the end of the plan."""
        total, checkpoint_every = self.plan.total_steps, self.run.checkpoint_every_steps
        strategy = self.run.strategy
        any_host = make_agreement(strategy)
        step = self.checkpoints.restore()
        any_host(False)  # no host writes before all have looked
        if self.is_chief:
            step = self._start(step)
        step = step or 0
        if step >= total:
            return
        batches = iter(
            strategy.distribute_datasets_from_function(
                lambda c: self.run.pipeline.dataset(
                    host_slice(c, self.plan.global_batch_size), step
                )
            )
        )
        names = metric_names(self.run.simclr)
        run_steps = make_loop(strategy, self.run.train_step(), names)
        reporter = Reporter(
            self.model_dir, start_step=step, total_steps=total, is_chief=self.is_chief
        )
        watch = Watch(loss_chance(self.plan.global_batch_size), self.plan.warmup_steps)
        with StopRequest() as stop:
            while step < total:
                # Loops end on multiples of their length whatever the start, as do checkpoints.
                goal = min(
                    _next_multiple(step, self.run.steps_per_loop),
                    _next_multiple(step, checkpoint_every),
                    total,
                )
                start = time.perf_counter()
                result = run_steps(batches, goal - step)
                seconds = time.perf_counter() - start
                if result.first_bad is not None:
                    self._stop_diverged(step + result.first_bad + 1)
                steps, step = goal - step, goal
                numbers = self._numbers(step, steps, seconds, result)
                epoch = step * self.plan.global_batch_size / self.plan.source.num_examples
                reporter.report(step, epoch, numbers, steps=steps, seconds=seconds)
                watch.look(step, epoch, numbers)
                stopping = any_host(stop.requested)
                if stopping or step % checkpoint_every == 0 or step == total:
                    self._check_weights(step)
                    self.checkpoints.save(step)
                self.run.pipeline.bad_images.check()
                if stopping and step < total:
                    raise PreemptedError(
                        f"Stopped on request at step {step} of {total}, which is saved in "
                        f"{self.model_dir}. The same command goes on from there."
                    )

    def _start(self, restored: int | None) -> int:
        """Says what will be done, and writes what a new run starts with; returns the step."""
        print(self.plan.text(self.run.simclr), flush=True)
        pairs = None if restored else figures.first_views(self.run.pipeline)
        with requests_checked():
            if restored is None:
                # First of all, so that a folder in which anything else lies has a checkpoint.
                self.checkpoints.save(0)
            write_text(os.path.join(self.model_dir, "config.gin"), config.record())
            if pairs is not None:
                figures.views(self.model_dir, pairs)
        if restored:
            print(f"going on from step {restored}", flush=True)
        return restored or 0

    def _numbers(self, step: int, steps: int, seconds: float, result) -> dict[str, float]:
        images = steps * self.plan.global_batch_size
        return result.metrics | {
            "loss_chance": loss_chance(self.plan.global_batch_size),
            "learning_rate": float(self.run.schedule(step - 1)),
            "examples_per_second": images / seconds,
            "host_wait": min(result.host_wait / seconds, 1.0),
            "skipped_images": len(self.run.pipeline.bad_images),
        }

    def _check_weights(self, step: int) -> None:
        """A checkpoint whose weights are not finite would be the newest one for ever."""
        if not all(np.isfinite(v.numpy()).all() for v in self.run.simclr.variables):
            self._stop_diverged(step)

    def _stop_diverged(self, step: int) -> None:
        raise DivergedError(
            f"The loss or a weight is not finite at step {step} of {self.plan.total_steps} "
            f"(learning rate {float(self.run.schedule(step - 1)):.4g}). Checkpoints from before it "
            f"are in {self.model_dir}. Lower learning_rate.base or lengthen the warm-up, and "
            "start in another --model_dir."
        )


def _next_multiple(step: int, length: int) -> int:
    return (step // length + 1) * length
