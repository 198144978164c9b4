"""`pretrain`: the main job, which trains an encoder without labels."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import gin
import keras
import tensorflow as tf

import simclr_tf.models.keras_application  # noqa: F401  an encoder that recipes may name
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import check_global_batch, check_microbatch, create_strategy
from simclr_tf.gin_types import Offered
from simclr_tf.jobs.assembly import AugmentOn, Ingredients, assemble, export_run
from simclr_tf.jobs.initial_weights import InitialWeights
from simclr_tf.methods import (  # noqa: F401, for recipes
    byol,
    cpc,
    dino,
    moco,
    pirl,
    supcon,
    vicreg,
)
from simclr_tf.methods.base import Method
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.resnet import resnet
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import (
    RunSchedule,
    batch_by_count,
    epochs_by_count,
    learning_rate,
)
from simclr_tf.training.failures import as_request_error
from simclr_tf.training.run import Cadence, Run, check_limits
from simclr_tf.training.trainer import train


def pretrain(context: Context) -> str:
    """Pretrains an encoder to the end of its plan, or resumes that, and exports it.

    Returns:
      The folder of the SavedModel; empty where another host exports.
    """
    return train_and_export(pretraining(context))


def train_and_export(run: Run) -> str:
    """Trains and exports an assembled run, as `pretrain` does."""
    folder = train(run, lambda: export_run(run))
    if folder is None:
        return ""
    figures = os.path.join(run.model_dir, "figures")
    print(f"encoder: {folder}\nfigures: {figures}", flush=True)
    return folder


@gin.configurable("pretrain", denylist=["context"])
def pretraining(
    context: Context,
    *,
    data: Callable[..., Dataset] = data,
    method: Annotated[Callable[..., Method], Offered("total_steps", "num_examples")] = simclr,
    encoder: Callable[..., keras.Model] = resnet,
    optimizer: Callable[..., keras.optimizers.Optimizer] = lars,
    learning_rate: Callable[..., RunSchedule] = learning_rate,
    strategy: Callable[..., tf.distribute.Strategy] = create_strategy,
    global_batch_size: Annotated[int | Callable[..., int], batch_by_count] = 4096,
    microbatch_size: int | None = None,
    augment_on: AugmentOn = "auto",
    image_sizes: Sequence[tuple[int, float]] = (),
    average_decay: float | None = None,
    epochs: Annotated[float | Callable[..., float], epochs_by_count] = 100.0,
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto",
    online_probe: bool = True,
    seed: int = 0,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int = 1000,
    checkpoint_every_minutes: float | None = 30.0,
    keep_checkpoints: int = 3,
    profile_steps: tuple[int, int] | None = None,
    initial_weights: str = "",
    initial_parts: tuple[str, ...] = (),
) -> Run:
    """Assembles a pretraining run; writes nothing yet.

    Args:
      context: the command line's values.
      data: the images and their size.
      encoder: builds the network that is kept.
      method: builds the method from `encoder` and `image_size`.
      optimizer: builds the optimizer from the schedule and the networks.
      learning_rate: builds the schedule.
      strategy: picks the tf.distribute strategy.
      global_batch_size: G, images per step over all replicas, or a function of `num_examples` that
        returns it.
      microbatch_size: images, over all replicas, whose activations are in memory at a time, to
        train on a larger batch than fits; it divides `global_batch_size`. The loss and its gradient
        are those of the whole batch, at the cost of a second forward pass; batch normalization
        takes the statistics of a micro-batch. None processes the batch at once.
      augment_on: where flip, colours and blur are computed. `device` is for steps that wait for
        data: the host sends uint8 crops or, for data in memory, plain images, which the device
        crops too. The views are the same, except that crops of files are rounded to 1/255. `auto`
        is the device for TPUs and wherever XLA does not compile for the host, otherwise the host; a
        resumed run keeps its place.
      image_sizes: (side in pixels, share of the steps) of stages with smaller views, which cost
        less; the other steps have data.image_size. [(16, 0.6), (24, 0.3)] trains 60 % of the steps
        at 16 pixels, 30 % at 24 and the rest at full size.
      average_decay: share that an update keeps of a moving average of all weights (EMA), such as
        0.999; None for no average. Checkpoints hold it beside the weights, and pretrained.average
        has evaluations and exports take it.
      epochs: passes over the data, or a function of `num_examples` that returns them.
      precision: dtype policy of the networks, `auto` for the fastest on the device; statistics,
        loss and weights are float32. `mixed_float16` scales the loss, and skips updates for which a
        gradient overflows.
      online_probe: whether a linear classifier watches the representation, if there are labels, at
        the cost of a forward pass of an eighth of the batch or, if that is more, 128 images.
      seed: seed of weights, order and augmentation.
      steps_per_loop: steps between two reports, taken by calls of one tf.function of about 10 s at
        most; a request to stop is noticed between calls.
      checkpoint_every_steps: steps between two checkpoints; one is saved at the end in any case.
      checkpoint_every_minutes: a report this long after the last checkpoint is followed by a
        checkpoint too; None turns that off. By default 30: a kill then costs a quarter of an hour
        on average, and a save, of some seconds, less than a percent of the time.
      keep_checkpoints: how many of the newest checkpoints are kept.
      profile_steps: (start, stop): the steps from `start` to before `stop`, counted from 0, are
        profiled for TensorBoard's profile plug-in, each as a call of its own. None for no profile.
      initial_weights: what a new run starts from: a run's folder, one of its checkpoints, a
        SavedModel of this project, or a ResNet in torchvision's format (`.safetensors`). A run that
        has a checkpoint resumes from that and does not read them again. '' for initial values.
      initial_parts: the networks to fill, such as ('encoder',); by default all that are there.
    """
    with as_request_error():
        cadence = Cadence(
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            checkpoint_every_minutes=checkpoint_every_minutes,
            keep_checkpoints=keep_checkpoints,
            profile_steps=profile_steps,
        )
        fixed_batch = 1 if callable(global_batch_size) else global_batch_size
        check_limits("pretrain", cadence, seed, fixed_batch)
        replicas = strategy(tpu=context.tpu, runtime=context.runtime)
        dataset = data(data_dir=context.data_dir)
        source = dataset.train()
        count = source.num_examples
        batch = _by_count(global_batch_size, count)
        _check_batch(batch, microbatch_size, replicas, source)
        passes = _by_count(epochs, count)
        schedule = learning_rate(epochs=passes, num_examples=count, global_batch=batch)
        ingredients = Ingredients(
            job="pretrain",
            context=context,
            strategy=replicas,
            dataset=dataset,
            source=dataset.held(source, context.tpu),
            schedule=schedule,
            epochs=passes,
            precision=precision,
            seed=seed,
            global_batch_size=batch,
            microbatch_size=microbatch_size,
            augment_on=augment_on,
            image_sizes=image_sizes,
            average_decay=average_decay,
            num_classes=source.num_classes if online_probe else None,
            cadence=cadence,
            initial=InitialWeights.of(initial_weights, initial_parts),
            **_advice(context),
        )
        build = _factory(method, encoder, dataset.image_size, schedule.total_steps, count)
        return assemble(ingredients, method=build, optimizer=optimizer)


def _advice(context: Context) -> dict[str, str]:
    return {
        "when_out_of_memory": "Set pretrain.microbatch_size or a smaller batch, or resnet.remat.",
        "when_length_differs": "To train longer than planned, start a new run from this one: "
        f"another --model_dir, with pretrain.initial_weights = '{context.model_dir}'.",
    }


def _factory(
    method: Callable[..., Method],
    encoder: Callable[..., keras.Model],
    image_size: int,
    total_steps: int,
    num_examples: int,
) -> Callable[[], Method]:
    """Returns a method's factory with its arguments: the last two if it has these parameters."""
    arguments = {"encoder": encoder, "image_size": image_size}
    offered = {"total_steps": total_steps, "num_examples": num_examples}
    parameters = inspect.signature(method).parameters
    arguments |= {name: value for name, value in offered.items() if name in parameters}
    return functools.partial(method, **arguments)


def _by_count(setting: Any, num_examples: int) -> Any:
    """Returns a setting that may be a function of the number of images."""
    return setting(num_examples=num_examples) if callable(setting) else setting


def _check_batch(
    global_batch_size: int,
    microbatch_size: int | None,
    strategy: tf.distribute.Strategy,
    source: Source,
) -> None:
    replicas, images = strategy.num_replicas_in_sync, source.num_examples
    check_global_batch(
        global_batch_size,
        replicas,
        images,
        name="pretrain.global_batch_size",
        left_out=source.left_out_text(),
    )
    if microbatch_size is not None:
        check_microbatch(
            microbatch_size, global_batch_size, replicas, name="pretrain.microbatch_size"
        )
