"""`pretrain`: from images to a trained encoder, exported as a SavedModel."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Literal

import gin
import keras
import numpy as np
import tensorflow as tf

from simclr_tf import config
from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.data import Data, data
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import (
    check_global_batch,
    create_strategy,
    describe,
    fast_precision,
    host_slice,
)
from simclr_tf.errors import DivergedError, PreemptedError
from simclr_tf.export.saved_model import export_encoder
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import build_simclr, requests_checked
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.models.simclr import SimCLR
from simclr_tf.objectives.nt_xent import loss_chance, nt_xent
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine, learning_rate
from simclr_tf.training import figures
from simclr_tf.training.checkpoints import Checkpoints, named_groups, write_text
from simclr_tf.training.interrupt import StopRequest, is_chief, make_agreement
from simclr_tf.training.loop import make_loop
from simclr_tf.training.plan import Plan
from simclr_tf.training.reporting import Reporter, Watch
from simclr_tf.training.step import make_train_step, metric_names


@gin.configurable
def pretrain(
    context: Context,
    *,
    data: Callable[..., Data] = data,
    augmentation: Callable[[], Augmentation] = augmentation,
    encoder: Callable[..., keras.Model] = resnet,
    projection_head: Callable[..., keras.Model] = projection_head,
    loss: Callable[..., tuple] = nt_xent,
    optimizer: Callable[..., keras.optimizers.Optimizer] = lars,
    learning_rate: Callable[..., WarmupCosine] = learning_rate,
    strategy: Callable[..., tf.distribute.Strategy] = create_strategy,
    global_batch_size: int = 4096,
    epochs: float | Callable[..., float] = 100.0,
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto",
    online_probe: bool = True,
    seed: int = 0,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int = 1000,
    keep_checkpoints: int = 3,
) -> str:
    """Pretrains an encoder by SimCLR (https://arxiv.org/abs/2002.05709), or goes on with it.

    Args:
      context: what the command line says.
      data: where images come from, and their size.
      augmentation: how views are made of them.
      encoder: builds the network that is kept.
      projection_head: builds the one that is thrown away.
      loss: projections -> (this replica's share of the loss, of metrics).
      optimizer: builds it from the schedule and the models.
      learning_rate: builds the schedule.
      strategy: picks the tf.distribute strategy.
      global_batch_size: G, images per step over all replicas.
      epochs: passes over the data, or a function of `num_examples` that says how many.
      precision: what the networks compute in, `auto` for what is fastest on the device;
        statistics, loss and weights are float32.
      online_probe: whether a linear classifier watches the representation, if there are labels.
      seed: of weights, order and augmentation.
      steps_per_loop: steps between two reports, all inside one tf.function.
      checkpoint_every_steps: steps between two checkpoints; one is saved at the end in any case.
      keep_checkpoints: how many of the newest checkpoints are kept.

    Returns:
      The folder of the SavedModel.
    """
    with requests_checked():
        _check_positive(
            global_batch_size=global_batch_size,
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            keep_checkpoints=keep_checkpoints,
        )
        replicas = strategy(tpu=context.tpu)
        recipe = data(data_dir=context.data_dir)
        source = recipe.train()
        policy = fast_precision() if precision == "auto" else precision
        check_global_batch(global_batch_size, replicas.num_replicas_in_sync, source.num_examples)
        length = epochs(num_examples=source.num_examples) if callable(epochs) else epochs
        schedule = learning_rate(
            epochs=length, num_examples=source.num_examples, global_batch=global_batch_size
        )
        pipeline = ViewsPipeline(
            source=source,
            augmentation=augmentation(),
            image_size=recipe.image_size,
            seed=seed,
            bad_images=BadImages(source),
            shuffle_buffer=recipe.shuffle_buffer,
        )
        with replicas.scope():
            simclr = build_simclr(
                encoder,
                projection_head,
                image_size=recipe.image_size,
                num_classes=source.num_classes if online_probe else None,
                precision=policy,
                seed=seed,
            )
            rule = optimizer(learning_rate=schedule, simclr=simclr)
            rule.build(simclr.trainable_variables)
        # Its arguments are checked here, and known to the record of the run.
        dim = simclr.projection_head.outputs[-1].shape[-1]
        loss(tf.zeros([4, dim]))
    plan = Plan(
        source=source,
        image_size=recipe.image_size,
        strategy=describe(replicas),
        num_replicas=replicas.num_replicas_in_sync,
        global_batch_size=global_batch_size,
        epochs=length,
        total_steps=schedule.total_steps,
        warmup_steps=schedule.warmup_steps,
        peak_learning_rate=schedule.peak,
        optimizer=type(rule).__name__,
        precision=policy,
    )
    checkpoints = Checkpoints(
        context.model_dir,
        named_groups(simclr.groups(), rule),
        _settings(plan, precision, seed),
        keep=keep_checkpoints,
        is_chief=is_chief(replicas),
    )
    run = _Run(context, replicas, plan, pipeline, simclr, rule, schedule, loss, checkpoints)
    run.train(steps_per_loop, checkpoint_every_steps)
    if not run.is_chief:
        return ""
    folder = export_encoder(
        context.model_dir,
        plan.total_steps,
        simclr.encoder,
        lambda: encoder(image_size=recipe.image_size),
        recipe=config.record(),
    )
    figures.curves(context.model_dir)
    print(f"encoder: {folder}\nfigures: {os.path.join(context.model_dir, 'figures')}", flush=True)
    return folder


@dataclasses.dataclass
class _Run:
    """A run that has been put together."""

    context: Context
    strategy: tf.distribute.Strategy
    plan: Plan
    pipeline: ViewsPipeline
    simclr: SimCLR
    optimizer: keras.optimizers.Optimizer
    schedule: WarmupCosine
    loss: Callable
    checkpoints: Checkpoints

    def __post_init__(self):
        self.is_chief = is_chief(self.strategy)

    def train(self, steps_per_loop: int, checkpoint_every: int) -> None:
        """Trains from where the model_dir is to the end of the plan."""
        total = self.plan.total_steps
        any_host = make_agreement(self.strategy)
        step = self.checkpoints.restore()
        any_host(False)  # no host writes before all have looked
        if self.is_chief:
            step = self._start(step)
        step = step or 0
        if step >= total:
            return
        batches = iter(
            self.strategy.distribute_datasets_from_function(
                lambda c: self.pipeline.dataset(host_slice(c, self.plan.global_batch_size), step)
            )
        )
        train_step = make_train_step(self.simclr, self.optimizer, self.loss)
        run_steps = make_loop(self.strategy, train_step, metric_names(self.simclr))
        reporter = Reporter(
            self.context.model_dir, start_step=step, total_steps=total, is_chief=self.is_chief
        )
        watch = Watch(loss_chance(self.plan.global_batch_size), self.plan.warmup_steps)
        with StopRequest() as stop:
            while step < total:
                # Loops end on multiples of their length whatever the start, as do checkpoints.
                goal = min(
                    _next_multiple(step, steps_per_loop),
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
                self.pipeline.bad_images.check()
                if stopping and step < total:
                    raise PreemptedError(
                        f"Stopped on request at step {step} of {total}, which is saved in "
                        f"{self.context.model_dir}. The same command goes on from there."
                    )

    def _start(self, restored: int | None) -> int:
        """Says what will be done, and writes what a new run starts with; returns the step."""
        print(self.plan.text(self.simclr), flush=True)
        pairs = None if restored else figures.first_views(self.pipeline)
        with requests_checked():
            if restored is None:
                # First of all, so that a folder in which anything else lies has a checkpoint.
                self.checkpoints.save(0)
            write_text(os.path.join(self.context.model_dir, "config.gin"), config.record())
            if pairs is not None:
                figures.views(self.context.model_dir, pairs)
        if restored:
            print(f"going on from step {restored}", flush=True)
        return restored or 0

    def _numbers(self, step: int, steps: int, seconds: float, result) -> dict[str, float]:
        images = steps * self.plan.global_batch_size
        return result.metrics | {
            "loss_chance": loss_chance(self.plan.global_batch_size),
            "learning_rate": float(self.schedule(step - 1)),
            "examples_per_second": images / seconds,
            "host_wait": min(result.host_wait / seconds, 1.0),
            "skipped_images": len(self.pipeline.bad_images),
        }

    def _check_weights(self, step: int) -> None:
        """A checkpoint whose weights are not finite would be the newest one for ever."""
        if not all(np.isfinite(v.numpy()).all() for v in self.simclr.variables):
            self._stop_diverged(step)

    def _stop_diverged(self, step: int) -> None:
        raise DivergedError(
            f"The loss or a weight is not finite at step {step} of {self.plan.total_steps} "
            f"(learning rate {float(self.schedule(step - 1)):.4g}). Checkpoints from before it are "
            f"in {self.context.model_dir}. Lower learning_rate.base or lengthen the warm-up, and "
            "start in another --model_dir."
        )


def _settings(plan: Plan, precision: str, seed: int) -> dict:
    """What must not change when a run goes on: another value would give another run."""
    return {
        "source": plan.source.name,
        "num_examples": plan.source.num_examples,
        "image_size": plan.image_size,
        "global_batch_size": plan.global_batch_size,
        "total_steps": plan.total_steps,
        "warmup_steps": plan.warmup_steps,
        "peak_learning_rate": plan.peak_learning_rate,
        "optimizer": plan.optimizer,
        "precision": precision,
        "seed": seed,
    }


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"pretrain.{name} must be at least 1. Received: {value}.")


def _next_multiple(step: int, length: int) -> int:
    return (step // length + 1) * length
