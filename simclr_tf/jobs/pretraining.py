"""Pretraining that has been put together: what it consists of, and how it is run to its end."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf import config
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import build_for_export
from simclr_tf.jobs.trainer import train
from simclr_tf.jobs.training import Training
from simclr_tf.models.simclr import SimCLR
from simclr_tf.objectives.nt_xent import loss_chance
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training import figures
from simclr_tf.training.diagnosis import Diagnosis, structural_findings
from simclr_tf.training.plan import Plan
from simclr_tf.training.reporting import contrastive_words
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
      checkpoint_every_minutes: after which a report is followed by a checkpoint, or None.
      keep_checkpoints: how many of the newest checkpoints are kept.
      profile_steps: (start, stop) of the steps to profile, or None.
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
    checkpoint_every_minutes: float | None
    keep_checkpoints: int
    profile_steps: tuple[int, int] | None

    def train_step(self) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        """The replica function."""
        return make_train_step(
            self.simclr,
            self.optimizer,
            self.loss,
            self.plan.num_microbatches,
            self.pipeline.views,
        )


def train_and_export(run: Pretraining) -> str:
    """Trains to the end of the plan, and exports the networks.

    Returns:
      The folder of the SavedModel; empty where another host exports.
    """
    model_dir, image_size = run.context.model_dir, run.plan.image_size
    groups = run.simclr.groups()

    def export() -> str:
        folder = export_networks(
            model_dir,
            run.plan.total_steps,
            {name: groups[name] for name in ("encoder", "projection_head")},
            lambda: build_for_export(run.encoder, run.projection_head, image_size),
            image_size=image_size,
            recipe=config.record(),
        )
        figures.curves(model_dir)
        return folder

    folder = train(training_of(run), export)
    if folder is None:
        return ""
    print(f"encoder: {folder}\nfigures: {os.path.join(model_dir, 'figures')}", flush=True)
    return folder


def training_of(run: Pretraining) -> Training:
    """What the outer loop is given."""
    chance = _chance(run)
    diagnosis = Diagnosis(
        global_batch_size=run.plan.global_batch_size,
        chance=chance,
        warmup_steps=run.plan.warmup_steps,
        num_classes=run.plan.source.num_classes,
    )
    return Training(
        model_dir=run.context.model_dir,
        strategy=run.strategy,
        job="pretrain",
        plan=run.plan.lines(run.simclr),
        pipeline=run.pipeline,
        networks=run.simclr.groups(),
        optimizer=run.optimizer,
        schedule=run.schedule,
        train_step=run.train_step(),
        metric_names=metric_names(run.simclr, run.optimizer),
        chance=chance,
        words=contrastive_words,
        settings=run.settings,
        global_batch_size=run.plan.global_batch_size,
        steps_per_loop=run.steps_per_loop,
        checkpoint_every_steps=run.checkpoint_every_steps,
        checkpoint_every_minutes=run.checkpoint_every_minutes,
        keep_checkpoints=run.keep_checkpoints,
        profile_steps=run.profile_steps,
        known_faults=structural_findings(run.simclr.groups(), run.plan.num_replicas),
        diagnosis=diagnosis.look,
    )


def _chance(run: Pretraining) -> float:
    """The loss of projections that are all alike, by the scale of the run's own loss."""
    alike, _ = run.loss(tf.zeros([4, run.simclr.projection_head.outputs[-1].shape[-1]]))
    return loss_chance(run.plan.global_batch_size) * round(float(alike) / loss_chance(2), 4)
