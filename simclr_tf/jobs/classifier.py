"""Training a classifier on an encoder, and counting what it recognizes, as several jobs do."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gin
import keras
import tensorflow as tf

from simclr_tf import config
from simclr_tf.augment.policy import Augmentation, parse_policy
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.data import Data, data
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import Source
from simclr_tf.data.subset import class_balanced
from simclr_tf.distribute.strategy import (
    check_divides,
    create_strategy,
    fast_precision,
    of_this_process,
)
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.accuracy import top_k
from simclr_tf.evaluation.features import Features, FrozenEncoder
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import (
    as_request_error,
    check_minutes,
    check_seed,
    dtype_policy,
    write_result,
)
from simclr_tf.jobs.frozen import check_labels, labelled
from simclr_tf.jobs.trainer import train
from simclr_tf.jobs.training import Training
from simclr_tf.models.classifier import build_classifier, copy_values, served_networks
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.models.simclr import SimCLR
from simclr_tf.optim.factory import momentum
from simclr_tf.optim.schedules import learning_rate
from simclr_tf.training import figures
from simclr_tf.training.classification import (
    classification_words,
    make_classification_step,
    metric_names,
)
from simclr_tf.training.loss_scale import with_loss_scale
from simclr_tf.training.plan import Plan

# SimCLR appendix B.4, B.5: random crops and flips, no colour distortion, no blur.
CROP_AND_FLIP = Augmentation(parse_policy((("flip", 0.5),)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a job asks of `train_classifier`.

    Attributes:
      job: whose result it is.
      protocol: in words, for the result.
      augmentation: of the training images.
      restore: fills the recipe's encoder and, if it is needed, projection head.
      freeze: sets what does not train.
      head_layers: how many layers of the projection head stay below the classifier.
      label_share: of the labels of each class.
      settings: what else must not change when the run goes on; also written into the result.
      zero_init: whether the classifier starts from zeros.
    """

    job: str
    protocol: str
    augmentation: Augmentation
    restore: Callable[[Mapping[str, keras.Model]], None] = lambda networks: None
    freeze: Callable[[SimCLR], None] = lambda simclr: None
    head_layers: int = 0
    label_share: float = 1.0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    zero_init: bool = True


@gin.configurable(denylist=["context", "task"])
def train_classifier(
    context: Context,
    task: Callable[[], Task],
    *,
    data: Callable[..., Data] = data,
    encoder: Callable[..., keras.Model] = resnet,
    projection_head: Callable[..., keras.Model] = projection_head,
    optimizer: Callable[..., keras.optimizers.Optimizer] = momentum,
    base_learning_rate: float = 0.1,
    scaling: Literal["linear", "sqrt", "none"] = "linear",
    warmup_epochs: float = 0.0,
    weight_decay: float = 0.0,
    global_batch_size: int = 256,
    epochs: float = 90.0,
    strategy: Callable[..., tf.distribute.Strategy] = create_strategy,
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto",
    seed: int = 0,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int = 1000,
    checkpoint_every_minutes: float | None = 30.0,
    keep_checkpoints: int = 1,
) -> dict:
    """Trains with cross-entropy, evaluates on every test image once, and writes the result.

    What the recipe says about pretraining (its learning rate, its augmentation) has no part in it.

    Args:
      context: what the command line says.
      task: what the job asks, found out once the devices are chosen.
      data: must name labelled train and evaluation splits.
      encoder: builds the network, as in pretraining.
      projection_head: builds the head, as in pretraining, where some of its layers are kept.
      optimizer: builds it from the schedule and the models.
      base_learning_rate: before scaling with the batch.
      scaling: of the learning rate: base * G / 256, base * sqrt(G), or base.
      warmup_epochs: of linear warm-up; then the rate follows a cosine to zero.
      weight_decay: of kernels; the classifier's is never decayed.
      global_batch_size: G, images per step over all replicas.
      epochs: passes over the training images.
      strategy: picks the tf.distribute strategy.
      precision: what the networks compute in, as in pretraining.
      seed: of weights, order, augmentation and the labels' share.
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      checkpoint_every_minutes: as in pretraining.
      keep_checkpoints: how many of the newest checkpoints are kept.

    Returns:
      The numbers, which are also in `results/<job>.json`.
    """
    with as_request_error():
        check_minutes("train_classifier", checkpoint_every_minutes)
        check_seed("train_classifier", seed)
        replicas = strategy(tpu=context.tpu)
        check_divides(
            "train_classifier.global_batch_size", global_batch_size, replicas.num_replicas_in_sync
        )
        asked = task()
        recipe = data(data_dir=context.data_dir)
        source = class_balanced(labelled(recipe.train()), asked.label_share, seed)
        test = labelled(recipe.evaluation())
        _check_classes(source, test)
        source = recipe.held(source, context.tpu)
        policy = fast_precision(replicas) if precision == "auto" else precision
        schedule = learning_rate(
            base=base_learning_rate,
            scaling=scaling,
            warmup_epochs=warmup_epochs,
            epochs=epochs,
            num_examples=source.num_examples,
            global_batch=global_batch_size,
        )

        build = functools.partial(
            build_classifier,
            encoder,
            projection_head,
            image_size=recipe.image_size,
            num_classes=source.num_classes,
            head_layers=asked.head_layers,
            zero_init=asked.zero_init,
            seed=seed,
        )
        with replicas.scope():
            with dtype_policy(policy):
                simclr = build(restore=asked.restore)
            asked.freeze(simclr)
            rule = optimizer(weight_decay=weight_decay, learning_rate=schedule, simclr=simclr)
            rule.build(simclr.trainable_variables)
            scaled = with_loss_scale(rule, simclr.trainable_variables, policy)
    plan = Plan.of(
        strategy=replicas,
        schedule=schedule,
        optimizer=rule,
        source=source,
        image_size=recipe.image_size,
        global_batch_size=global_batch_size,
        epochs=epochs,
        precision=policy,
        num_views=1,
    )
    pipeline = ViewsPipeline(
        source=source,
        augmentation=asked.augmentation,
        image_size=recipe.image_size,
        seed=seed,
        bad_images=BadImages(source),
        shuffle_buffer=recipe.shuffle_buffer,
        num_views=1,
    )
    settings = {"weight_decay": weight_decay, **asked.settings}

    @functools.cache
    def on_host() -> SimCLR:
        networks = build()
        copy_values(simclr, networks)
        return networks

    folder = train(
        Training(
            model_dir=context.model_dir,
            strategy=replicas,
            job=asked.job,
            plan=plan.lines(simclr),
            pipeline=pipeline,
            networks={name: n for name, n in simclr.groups().items() if n.weights},
            optimizer=scaled,
            schedule=schedule,
            train_step=make_classification_step(simclr, scaled),
            metric_names=metric_names(scaled),
            chance=math.log(source.num_classes),
            words=classification_words,
            settings={"job": asked.job, **plan.settings(policy, seed), **settings},
            global_batch_size=global_batch_size,
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            checkpoint_every_minutes=checkpoint_every_minutes,
            keep_checkpoints=keep_checkpoints,
        ),
        lambda: _export(context.model_dir, plan, on_host()),
    )
    if folder is None:
        return {}
    devices = of_this_process(replicas)
    with devices.scope():
        networks = build()  # in float32, whatever trained
    copy_values(simclr, networks)
    logits = _logits(networks, test, recipe.image_size, devices)
    numbers = {f"top{k}": top_k(logits.values, logits.labels, k) for k in (1, 5)}
    print(
        f"{asked.job}: top-1 {numbers['top1']:.2%}, top-5 {numbers['top5']:.2%} of "
        f"{len(logits.labels)} test images (trained on {source.num_examples})\n"
        f"classifier: {folder}",
        flush=True,
    )
    return write_result(
        context.model_dir,
        asked.job,
        protocol=asked.protocol,
        numbers=numbers,
        n={"train": source.num_examples, "test": len(logits.labels)},
        data=recipe.name,
        **plan.settings(policy, seed),
        epochs=epochs,
        **settings,
    )


def _export(model_dir: str, plan: Plan, simclr: SimCLR) -> str:
    networks = served_networks(simclr)
    folder = export_networks(
        model_dir,
        plan.total_steps,
        networks,
        lambda: networks,
        image_size=plan.image_size,
        recipe=config.record(),
        class_names=plan.source.class_names,
    )
    figures.curves(model_dir)
    return folder


def _logits(
    simclr: SimCLR, source: Source, image_size: int, devices: tf.distribute.Strategy
) -> Features:
    """What the classifier says of every image, each once."""
    networks = FrozenEncoder(*simclr.groups().values(), image_size=image_size, strategy=devices)
    logits = networks.features(source, ("logits",))["logits"]
    check_labels(logits)
    return logits


def _check_classes(train: Source, test: Source) -> None:
    if test.num_classes > train.num_classes:
        raise RequestError(
            f"The test images must be of the {train.num_classes} classes of {train.name}. "
            f"Received: {test.name} with {test.num_classes} classes. Choose splits of one data set."
        )
