"""`pretrain`: from images to a trained encoder, exported as a SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.data import Data, data
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource, Source
from simclr_tf.distribute.lowering import traced_once
from simclr_tf.distribute.strategy import (
    check_global_batch,
    check_microbatch,
    create_strategy,
    fast_precision,
)
from simclr_tf.distribute.xla import host_compiles
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import as_request_error, build_simclr, check_minutes, check_seed
from simclr_tf.jobs.pretraining import Pretraining, train_and_export
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.nt_xent import nt_xent
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine, learning_rate
from simclr_tf.training.checkpoints import started_settings
from simclr_tf.training.loss_scale import with_loss_scale
from simclr_tf.training.plan import Plan
from simclr_tf.training.profile import check_profile_steps


@gin.configurable(denylist=["context", "then"])
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
    microbatch_size: int | None = None,
    augment_on: Literal["auto", "host", "device"] = "auto",
    epochs: float | Callable[..., float] = 100.0,
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto",
    online_probe: bool = True,
    seed: int = 0,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int = 1000,
    checkpoint_every_minutes: float | None = 30.0,
    keep_checkpoints: int = 3,
    profile_steps: tuple[int, int] | None = None,
    then: Callable[[Pretraining], Any] = train_and_export,
) -> Any:
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
      microbatch_size: images, over all replicas, whose activations are in memory at a time, to
        train on a larger batch than fits; it divides `global_batch_size`. The loss and its gradient
        are those of the whole batch, at the cost of a second forward pass; batch normalization
        takes the statistics of a micro-batch. None works off the batch at once.
      augment_on: where flip, colours and blur are computed. `device` is for steps that wait for
        data: the host ships uint8 crops, or of data in memory plain images, which the device crops
        too. The views are the same, but that crops of files are rounded to 1/255. `auto` is the
        device for TPUs and wherever XLA does not compile for the host, else the host; a run that
        goes on keeps the place that it has.
      epochs: passes over the data, or a function of `num_examples` that says how many.
      precision: what the networks compute in, `auto` for what is fastest on the device;
        statistics, loss and weights are float32. `mixed_float16` scales the loss, and skips updates
        for which a gradient overflows.
      online_probe: whether a linear classifier watches the representation, if there are labels.
      seed: of weights, order and augmentation.
      steps_per_loop: steps between two reports, taken by calls of one tf.function of about 10 s at
        most, between which a request to stop is heard.
      checkpoint_every_steps: steps between two checkpoints; one is saved at the end in any case.
      checkpoint_every_minutes: a report that comes so long after the last checkpoint is followed by
        one too; None for none. By default 30: what a kill costs is a quarter of an hour on average,
        and a save, of some seconds, less than a percent of the time.
      keep_checkpoints: how many of the newest checkpoints are kept.
      profile_steps: (start, stop): the steps from `start` to before `stop`, counted from 0, are
        profiled for TensorBoard's profile plug-in, each as a call of its own. None for no profile.
      then: what is done with the run that has been put together; preflight lowers it.

    Returns:
      What `then` returns: the folder of the SavedModel.
    """
    with as_request_error():
        _check_positive(
            global_batch_size=global_batch_size,
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            keep_checkpoints=keep_checkpoints,
        )
        check_minutes("pretrain", checkpoint_every_minutes)
        check_seed("pretrain", seed)
        replicas = strategy(tpu=context.tpu)
        recipe = data(data_dir=context.data_dir)
        source = recipe.train()
        policy = fast_precision(replicas) if precision == "auto" else precision
        check_global_batch(global_batch_size, replicas.num_replicas_in_sync, source.num_examples)
        if microbatch_size is not None:
            check_microbatch(microbatch_size, global_batch_size, replicas.num_replicas_in_sync)
        length = epochs(num_examples=source.num_examples) if callable(epochs) else epochs
        schedule = learning_rate(
            epochs=length, num_examples=source.num_examples, global_batch=global_batch_size
        )
        check_profile_steps(profile_steps, schedule.total_steps)
        source = recipe.held(source, context.tpu)
        views = augmentation()
        if augment_on == "auto":
            augment_on = _place_of_policy(replicas, views, source, context.model_dir)
        pipeline = ViewsPipeline(
            source=source,
            augmentation=views,
            image_size=recipe.image_size,
            seed=seed,
            bad_images=BadImages(source),
            shuffle_buffer=recipe.shuffle_buffer,
            augment_on=augment_on,
        )
        _check_place(pipeline)
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
            scaled = with_loss_scale(rule, simclr.trainable_variables, policy)
        # Its arguments are checked here, and known to the record of the run.
        dim = simclr.projection_head.outputs[-1].shape[-1]
        loss(tf.zeros([4, dim]))
    plan = Plan.of(
        strategy=replicas,
        schedule=schedule,
        optimizer=rule,
        source=source,
        image_size=recipe.image_size,
        global_batch_size=global_batch_size,
        microbatch_size=microbatch_size,
        augment_on=augment_on,
        epochs=length,
        precision=policy,
    )
    settings = {
        **plan.settings(policy, seed),
        "microbatch_size": microbatch_size,
        # For data in memory both places give the same views, so that a run may change it.
        "augment_on": augment_on if pipeline.rounds_crops else None,
    }
    return then(
        Pretraining(
            context=context,
            strategy=replicas,
            plan=plan,
            pipeline=pipeline,
            simclr=simclr,
            optimizer=scaled,
            schedule=schedule,
            loss=loss,
            encoder=encoder,
            projection_head=projection_head,
            settings=settings,
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            checkpoint_every_minutes=checkpoint_every_minutes,
            keep_checkpoints=keep_checkpoints,
            profile_steps=profile_steps,
        )
    )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise RequestError(f"pretrain.{name} must be at least 1. Received: {value}.")


def _place_of_policy(
    strategy: tf.distribute.Strategy, augmentation: Augmentation, source: Source, model_dir: str
) -> Literal["host", "device"]:
    """What `pretrain.augment_on = 'auto'` comes to."""
    if not augmentation.compiles:
        return "host"
    started = None if isinstance(source, ArraySource) else started_settings(model_dir)
    if started is not None:
        return started.get("augment_on") or "host"
    return "device" if traced_once(strategy) or not host_compiles() else "host"


def _check_place(pipeline: ViewsPipeline) -> None:
    if pipeline.augment_on == "device" and not pipeline.augmentation.compiles:
        names = ", ".join(entry.name for entry in pipeline.augmentation.policy)
        raise RequestError(
            "A policy on the device must consist of this package's own ops. Received: "
            f"pretrain.augment_on = 'device' with {names}; tensorflow-addons has ops without an "
            "XLA kernel. Bind pretrain.augment_on = 'host', or leave its ops out."
        )
