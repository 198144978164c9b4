"""Trains a classifier on an encoder, and tests it, for several jobs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import gin
import keras
import tensorflow as tf
from absl import logging

from simclr_tf.augment.views import ViewGroup
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import check_global_batch, create_strategy, of_this_process
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.accuracy import PerClass, top_k
from simclr_tf.evaluation.features import Features, FrozenEncoder
from simclr_tf.evaluation.frozen_encoder import check_labels, labelled
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Splits
from simclr_tf.jobs import few_images
from simclr_tf.jobs.assembly import Ingredients, assemble, export_run
from simclr_tf.jobs.classifier_task import ClassifierTask
from simclr_tf.methods.supervised import Supervised
from simclr_tf.models.classifier import build_classifier
from simclr_tf.models.heads import projection_head
from simclr_tf.models.networks import Networks, copy_values
from simclr_tf.models.resnet import resnet
from simclr_tf.optim.factory import momentum
from simclr_tf.optim.schedules import learning_rate
from simclr_tf.training.failures import as_request_error
from simclr_tf.training.run import Cadence, Run, check_limits
from simclr_tf.training.trainer import train

# Settings of a run that its result does not repeat.
_UNSAID = ("job", "microbatch_size", "augment_on")


@dataclasses.dataclass(frozen=True)
class ClassifierRun:
    """A run that trains a classifier, and the data to test it on.

    Attributes:
      run: the training.
      task: the job's request.
      dataset: the recipe's data.
      test: the labelled images to test on.
    """

    run: Run
    task: ClassifierTask
    dataset: Dataset
    test: Source


@gin.configurable("train_classifier", denylist=["context", "task"])
def classifier_training(
    context: Context,
    task: Callable[[], ClassifierTask],
    *,
    data: Callable[..., Dataset] = data,
    encoder: Callable[..., keras.Model] = resnet,
    projection_head: Callable[..., keras.Model] = projection_head,
    optimizer: Callable[..., keras.optimizers.Optimizer] = momentum,
    base_learning_rate: float = 0.1,
    scaling: Literal["linear", "sqrt", "none"] = "linear",
    warmup_epochs: float = 0.0,
    weight_decay: float = 0.0,
    decay_classifier: bool = False,
    global_batch_size: int = 256,
    epochs: float = 90.0,
    strategy: Callable[..., tf.distribute.Strategy] = create_strategy,
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto",
    seed: int = 0,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int = 1000,
    checkpoint_every_minutes: float | None = 30.0,
    keep_checkpoints: int = 1,
) -> ClassifierRun:
    """Assembles the training of a classifier; writes nothing yet.

    The recipe's pretraining settings (learning rate, augmentation) are not used.

    Args:
      context: the command line's values.
      task: the job's request, evaluated once the devices are chosen.
      data: must name a labelled evaluation split, and what the task needs to train on.
      encoder: builds the network, as in pretraining.
      projection_head: builds the head, as in pretraining, if some of its layers are kept.
      optimizer: builds the optimizer from the schedule and the networks.
      base_learning_rate: learning rate before scaling with the batch.
      scaling: scaling of the learning rate: base * G / 256, base * sqrt(G), or base.
      warmup_epochs: length of the linear warm-up; then the rate follows a cosine to zero.
      weight_decay: decay of kernels by the optimizer, the classifier's excluded.
      decay_classifier: whether the classifier's kernel is decayed too, in the loss, as by the
        reference.
      global_batch_size: G, images per step over all replicas.
      epochs: passes over the training images.
      strategy: picks the tf.distribute strategy.
      precision: dtype policy of the networks, as in pretraining.
      seed: seed of weights, order, augmentation and the labels' share.
      steps_per_loop: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints.
      checkpoint_every_minutes: as in pretraining.
      keep_checkpoints: how many of the newest checkpoints are kept.
    """
    with as_request_error():
        cadence = Cadence(
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            checkpoint_every_minutes=checkpoint_every_minutes,
            keep_checkpoints=keep_checkpoints,
        )
        check_limits("train_classifier", cadence, seed, global_batch_size)
        replicas = strategy(tpu=context.tpu, runtime=context.runtime)
        requested, dataset = task(), data(data_dir=context.data_dir)
        source, test = _splits(requested, dataset, seed)
        _check_batch(global_batch_size, epochs, source, replicas)
        schedule = learning_rate(
            base=base_learning_rate,
            scaling=scaling,
            warmup_epochs=warmup_epochs,
            epochs=epochs,
            num_examples=source.num_examples,
            global_batch=global_batch_size,
        )
        ingredients = Ingredients(
            job=requested.job,
            context=context,
            strategy=replicas,
            dataset=dataset,
            source=dataset.held(source, context.tpu),
            schedule=schedule,
            epochs=epochs,
            precision=precision,
            seed=seed,
            global_batch_size=global_batch_size,
            cadence=cadence,
            settings={"job": requested.job, "weight_decay": weight_decay, **requested.settings},
            when_out_of_memory="Set a smaller train_classifier.global_batch_size, or resnet.remat.",
        )
        networks = functools.partial(build_classifier, encoder, projection_head, seed=seed)
        decayed = functools.partial(optimizer, weight_decay=weight_decay)
        classifier_decay = weight_decay if decay_classifier else 0.0
        run = _assemble(ingredients, requested, networks, decayed, classifier_decay)
    return ClassifierRun(run, requested, dataset, test)


def _check_batch(
    global_batch_size: int, epochs: float, source: Source, strategy: tf.distribute.Strategy
) -> None:
    images, replicas = source.num_examples, strategy.num_replicas_in_sync
    check_global_batch(
        global_batch_size,
        replicas,
        images,
        name="train_classifier.global_batch_size",
        left_out=source.left_out_text(),
        advice=few_images.advice(images, epochs, replicas) if images >= replicas else "",
    )


def _splits(task: ClassifierTask, dataset: Dataset, seed: int) -> tuple[Source, Source]:
    """Returns the images to train on, and the labelled ones to test on."""
    train = task.images(dataset.train(), seed)
    test = labelled(dataset.evaluation())
    _check_classes(train, test)
    return train, test


def _assemble(
    ingredients: Ingredients,
    task: ClassifierTask,
    networks: Callable[..., Networks],
    optimizer: Callable[..., keras.optimizers.Optimizer],
    classifier_decay: float,
) -> Run:
    """Builds the method restored and partly frozen for training, and plain for export and test."""
    image_size = ingredients.dataset.image_size

    def build(
        restore: Callable[[Mapping[str, keras.Model]], None] = lambda networks: None,
        freeze: Callable[[Networks], None] = lambda networks: None,
        method: Callable[..., Supervised] = Supervised,
    ) -> Supervised:
        built = networks(
            image_size=image_size,
            num_classes=ingredients.source.num_classes,
            head_layers=task.head_layers,
            zero_init=task.zero_init,
            restore=restore,
        )
        freeze(built)
        views = ViewGroup("images", [task.augmentation], image_size)
        return method(built, [views], classifier_decay=classifier_decay)

    trained = functools.partial(build, restore=task.restore, freeze=task.freeze, method=task.method)
    return assemble(ingredients, method=trained, optimizer=optimizer, rebuild=build)


def train_and_test(classifier: ClassifierRun) -> Result | None:
    """Trains, and tests on every image once.

    Returns:
      The accuracies; None where another host exports.
    """
    run, task, source = classifier.run, classifier.task, classifier.run.plan.source
    warnings = few_images.warnings(run.plan)
    for text in warnings:
        logging.warning("%s", text)
    folder = train(run, lambda: export_run(run))
    if folder is None:
        return None
    logits = _logits(classifier)
    per_class, names = PerClass.of_scores(logits.values, logits.labels), source.class_names
    numbers = {f"top{k}": top_k(logits.values, logits.labels, k) for k in (1, 5)}
    numbers["mean_per_class"] = per_class.mean
    splits = Splits.of(
        classifier.dataset, source, classifier.test, source.labels, logits.labels
    ).warned(warnings)
    said = (
        f"{task.job}: top-1 {numbers['top1']:.2%}, top-5 {numbers['top5']:.2%} of "
        f"{len(logits.labels)} test images (trained on {source.num_examples})"
    )
    lines = [said, *per_class.lines(names), splits.lines(), f"classifier: {folder}"]
    settings = {name: value for name, value in run.settings.items() if name not in _UNSAID}
    record = {
        "protocol": task.protocol,
        "numbers": numbers,
        **per_class.record(names),
        **splits.record(),
        "n": {"train": source.num_examples, "test": len(logits.labels)},
        "data": classifier.dataset.name,
        "epochs": run.plan.epochs,
        **settings,
    }
    return Result(job=task.job, text="\n".join(lines), record=record)


def _logits(classifier: ClassifierRun) -> Features:
    """Computes the classifier's logits of every image, in float32 whatever the training used."""
    devices = of_this_process(classifier.run.strategy)
    with devices.scope():
        networks = classifier.run.rebuild().networks
    copy_values(classifier.run.method.networks, networks)
    frozen = FrozenEncoder(
        networks["encoder"],
        networks.get("projection_head"),
        networks["probe"],
        image_size=classifier.dataset.image_size,
        strategy=devices,
    )
    logits = frozen.features(classifier.test, ("logits",))["logits"]
    check_labels(logits)
    return logits


def _check_classes(train: Source, test: Source) -> None:
    if test.num_classes > train.num_classes:
        raise RequestError(
            f"The test images must be of the {train.num_classes} classes of {train.name}. "
            f"Received: {test.name} with {test.num_classes} classes. Choose splits of one data set."
        )
