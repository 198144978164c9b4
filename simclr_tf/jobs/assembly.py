"""Assembles a run from the recipe, for the jobs that train."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from simclr_tf import config
from simclr_tf.augment.policy import Augmentation
from simclr_tf.context import Context
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import Dataset
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import Source
from simclr_tf.distribute.lowering import traced_once
from simclr_tf.distribute.strategy import fast_precision
from simclr_tf.distribute.xla import host_compiles
from simclr_tf.errors import RequestError
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs.initial_weights import InitialWeights
from simclr_tf.methods.base import Method
from simclr_tf.models.networks import fingerprint
from simclr_tf.names import shown
from simclr_tf.optim.schedules import RunSchedule
from simclr_tf.training import figures
from simclr_tf.training.checkpoints import started_settings
from simclr_tf.training.loss_scale import with_loss_scale
from simclr_tf.training.plan import Plan
from simclr_tf.training.probe import OnlineProbe, images_a_step, online_probe
from simclr_tf.training.profile import check_profile_steps
from simclr_tf.training.run import Cadence, Run
from simclr_tf.training.stages import Stage, stages_of
from simclr_tf.training.weight_average import WeightAverage, weight_average

AugmentOn = Literal["auto", "host", "device"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """Parts of a run before its networks are built.

    Attributes:
      job: the job's name.
      context: the command line's values.
      strategy: its replicas run the steps.
      dataset: the recipe's data.
      source: the images to train on.
      schedule: learning rate schedule over the whole run.
      epochs: passes over the data.
      precision: dtype policy of the networks, or 'auto'.
      seed: seed of weights, order and augmentation.
      global_batch_size: G.
      microbatch_size: images whose activations are in memory at a time, or None for all.
      augment_on: where the policy runs.
      num_classes: classes of the online probe, or None for no probe.
      cadence: how often the run reports and saves.
      image_sizes: (side, share of the steps) of stages with smaller views.
      average_decay: of the moving average of the weights, or None for none.
      settings: other values that must not change on resume.
      initial: the weights that a new run starts from, or None for initial values.
      when_out_of_memory: what a person should set if a step does not fit into memory.
      when_length_differs: how to train longer than the run was planned for.
    """

    job: str
    context: Context
    strategy: tf.distribute.Strategy
    dataset: Dataset
    source: Source
    schedule: RunSchedule
    epochs: float
    precision: str
    seed: int
    global_batch_size: int
    microbatch_size: int | None = None
    augment_on: AugmentOn = "host"
    num_classes: int | None = None
    cadence: Cadence
    image_sizes: Sequence[tuple[int, float]] = ()
    average_decay: float | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: InitialWeights | None = None
    when_out_of_memory: str
    when_length_differs: str = ""


def assemble(
    ingredients: Ingredients,
    *,
    method: Callable[[], Method],
    optimizer: Callable[..., keras.optimizers.Optimizer],
    rebuild: Callable[[], Method] | None = None,
) -> Run:
    """Builds networks, optimizer and input pipeline; writes nothing.

    Args:
      ingredients: the parts known so far.
      method: builds the method, in the strategy's scope.
      optimizer: builds the optimizer from `learning_rate` and `networks`.
      rebuild: builds the method again for the export; by default `method` does.
    """
    run = ingredients
    name = f"{run.job}.profile_steps"
    check_profile_steps(run.cadence.profile_steps, run.schedule.total_steps, name)
    if run.precision == "auto":
        run = dataclasses.replace(run, precision=fast_precision(run.strategy))
    with run.strategy.scope():
        keras.utils.set_random_seed(run.seed)
        with dtype_policy(run.precision):
            built = method()
        _check_method(run, built)
        trainable = built.networks.trainable_variables
        rule = optimizer(learning_rate=run.schedule, networks=built.networks)
        rule.build(trainable)
        scaled = with_loss_scale(rule, trainable, run.precision)
        probe = online_probe(run.num_classes, built.networks["encoder"])
        average = _average(run, built, method)
    pipeline = _pipeline(run, built)
    size, steps = run.dataset.image_size, run.schedule.total_steps
    stages = stages_of(pipeline, run.image_sizes, image_size=size, total_steps=steps)
    _check_sizes(stages, built)
    plan = _plan(run, rule, stages)
    return Run(
        job=run.job,
        model_dir=run.context.model_dir,
        strategy=run.strategy,
        plan=plan,
        method=built,
        probe=probe,
        average=average,
        optimizer=scaled,
        schedule=run.schedule,
        settings={**_settings(run, plan, pipeline, built), **run.settings},
        cadence=run.cadence,
        rebuild=rebuild or method,
        when_out_of_memory=run.when_out_of_memory,
        when_length_differs=run.when_length_differs,
        **_initialize(run, built, probe),
    )


def export_run(run: Run) -> str:
    """Writes the SavedModel and the curves of a finished run.

    Returns:
      The folder of the SavedModel.
    """
    networks = run.method.exported()
    folder = export_networks(
        run.model_dir,
        run.total_steps,
        networks,
        lambda: run.rebuild().exported(),
        image_size=run.plan.image_size,
        recipe=config.record(),
        class_names=run.plan.source.class_names if "classifier" in networks else None,
    )
    figures.curves(run.model_dir, run.metrics, run.method.metrics[0].name)
    return folder


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """While open, Keras builds layers of this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _initialize(run: Ingredients, method: Method, probe: OnlineProbe | None) -> dict[str, Callable]:
    """Returns the argument `initialize` of a run that starts from weights."""
    if run.initial is None:
        return {}
    names = tuple(probe.networks) if probe else ()
    return {"initialize": functools.partial(run.initial.fill, method, names)}


def _check_method(run: Ingredients, method: Method) -> None:
    """Raises RequestError unless the method can take the data and the batch, perhaps in parts."""
    if method.needs_labels and run.source.num_classes is None:
        raise RequestError(
            f"{method.name} needs labels. Received: {shown(run.source.name)}, which has none. For "
            "a folder, put each class into a subfolder of its own."
        )
    method.check(
        num_examples=run.source.num_examples,
        global_batch=run.global_batch_size,
        microbatch=run.microbatch_size or run.global_batch_size,
        replicas=run.strategy.num_replicas_in_sync,
    )
    if run.microbatch_size is not None and method.embedded_specs is None:
        raise RequestError(
            "pretrain.microbatch_size must be None where a method embeds its batch at once. "
            f"Received: {run.microbatch_size}, with the method {method.name!r}. Leave it out, or "
            "set a smaller pretrain.global_batch_size."
        )


def _check_sizes(stages: Sequence[Stage], method: Method) -> None:
    """Raises RequestError if the encoder cannot take the views of each stage."""
    fixed = method.networks["encoder"].inputs[0].shape[1]
    sizes = {group.size for stage in stages for group in stage.pipeline.groups}
    if fixed is not None and sizes != {fixed}:
        raise RequestError(
            f"Views must have the size that the encoder takes, {fixed} pixels. Received: views of "
            f"{', '.join(map(str, sorted(sizes)))} pixels. Leave out pretrain.image_sizes and "
            "small views, or use @resnet, which takes any size."
        )


def _average(
    run: Ingredients, method: Method, rebuild: Callable[[], Method]
) -> WeightAverage | None:
    if run.average_decay is None:
        return None
    with dtype_policy(run.precision):
        copy = rebuild().networks
    return weight_average(method.networks, copy, run.average_decay)


def _pipeline(run: Ingredients, method: Method) -> ViewsPipeline:
    augmentations = [a for group in method.views for a in group.augmentations]
    augment_on = run.augment_on
    if augment_on == "auto":
        augment_on = _place_of_policy(run, augmentations)
    _check_place(augment_on, augmentations)
    return ViewsPipeline(
        source=run.source,
        groups=method.views,
        seed=run.seed,
        bad_images=BadImages(run.source),
        shuffle_buffer=run.dataset.shuffle_buffer,
        augment_on=augment_on,
        plain_images=images_a_step(run.global_batch_size) if run.num_classes else 0,
        by_position=method.needs_positions,
    )


def _place_of_policy(
    run: Ingredients, augmentations: Sequence[Augmentation]
) -> Literal["host", "device"]:
    """Returns where the policy runs if `augment_on` is 'auto'."""
    if not all(augmentation.compiles for augmentation in augmentations):
        return "host"
    started = None if run.source.in_memory else started_settings(run.context.model_dir)
    if started is not None:
        return started.get("augment_on") or "host"
    return "device" if traced_once(run.strategy) or not host_compiles() else "host"


def _check_place(augment_on: str, augmentations: Sequence[Augmentation]) -> None:
    foreign = [augmentation for augmentation in augmentations if not augmentation.compiles]
    if augment_on == "device" and foreign:
        names = ", ".join(entry.name for entry in foreign[0].policy)
        raise RequestError(
            "A policy on the device must consist of this package's own ops. Received: "
            f"pretrain.augment_on = 'device' with {names}; tensorflow-addons has ops without an "
            "XLA kernel. Bind pretrain.augment_on = 'host', or leave its ops out."
        )


def _plan(run: Ingredients, optimizer: keras.optimizers.Optimizer, stages: Sequence[Stage]) -> Plan:
    return Plan.of(
        strategy=run.strategy,
        schedule=run.schedule,
        optimizer=optimizer,
        source=run.source,
        image_size=run.dataset.image_size,
        global_batch_size=run.global_batch_size,
        microbatch_size=run.microbatch_size,
        augment_on=stages[-1].pipeline.augment_on,
        epochs=run.epochs,
        precision=run.precision,
        stages=stages,
    )


def _settings(
    run: Ingredients, plan: Plan, pipeline: ViewsPipeline, method: Method
) -> dict[str, Any]:
    """Returns what must not change when the run is resumed."""
    return {
        **plan.settings(run.precision, run.seed),
        "microbatch_size": run.microbatch_size,
        # For data in memory both places give the same views, so a run may change it.
        "augment_on": pipeline.augment_on if pipeline.rounds_crops else None,
        **({"fixed": fingerprint(method.fixed.values())} if method.fixed else {}),
    }
