"""What every method must do, whatever it trains by: the checks that `test_conformance.py` runs.

A method is given as a factory of `encoder` and `image_size`, as `pretrain.method` is. All networks
are tiny, and the numbers come from NumPy. A run is put together by the job itself; its steps are
then fed by hand, so that no check waits for an input pipeline.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.distribute.strategy import create_strategy, simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.base import Method
from simclr_tf.optim.factory import momentum
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.checkpoints import Checkpoints, read_manifest
from simclr_tf.training.run import Run

Factory = Callable[..., Method]
Values = dict[str, np.ndarray]

IMAGE_SIZE, BATCH, CLASSES = 16, 8, 3
AUGMENTATION = functools.partial(augmentation, policy=(("flip", 0.5),))


def tiny_encoder(*, image_size: int) -> keras.Model:
    """Two convolutions for images of any size, each with batch normalization over all replicas."""
    del image_size
    x = images = keras.Input((None, None, 3), name="images")
    for i, width in enumerate((4, 6)):
        x = keras.layers.Conv2D(width, 3, 2, use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(SyncBatchNormalization(name=f"bn{i}")(x))
    h = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    return keras.Model(images, {"final_avg_pool": h}, name="encoder")


def assemble(factory: Factory, strategy: tf.distribute.Strategy | None = None, **kwargs) -> Run:
    """The run that pretrains by a method, which no online probe watches."""
    rng = np.random.default_rng(0)
    source = ArraySource(
        name="arrays",
        num_examples=4 * BATCH,
        class_names=[str(i) for i in range(CLASSES)],
        images=rng.integers(0, 256, (4 * BATCH, 20, 20, 3), np.uint8),
        labels=rng.integers(0, CLASSES, 4 * BATCH),
    )
    settings = {
        "method": factory,
        "encoder": tiny_encoder,
        "optimizer": momentum,
        "learning_rate": lambda **numbers: WarmupCosine(0.002, 0, 8),
        "epochs": 2.0,
        "global_batch_size": BATCH,
        "precision": "float32",
        "augment_on": "host",
        "online_probe": False,
        **kwargs,
    }
    return pretraining(
        Context(model_dir="", tpu="none"),
        data=lambda data_dir: Dataset(
            "arrays", IMAGE_SIZE, "train", "test", 64, None, opened=source
        ),
        strategy=lambda **_: strategy or tf.distribute.get_strategy(),
        **settings,
    )


def batch_of(method: Method, step: int, replica: int = 0, replicas: int = 1) -> dict:
    """A replica's part of the global batch of a step: views, labels, index."""
    rng = np.random.default_rng([7, step])
    rows = slice(replica * BATCH // replicas, (replica + 1) * BATCH // replicas)
    labels = rng.integers(-1, CLASSES, BATCH).astype(np.int32)  # -1: unknown
    index = rng.permutation(4 * BATCH)[:BATCH].astype(np.int32)
    batch = {"labels": tf.constant(labels[rows]), "index": tf.constant(index[rows])}
    for group in method.views:
        shape = (group.count, BATCH, group.size, group.size, 3)
        colours = rng.random((1, BATCH, 1, 1, 3), np.float32)  # by which examples are told apart
        images = (0.7 * colours + 0.3 * rng.random(shape, np.float32))[:, rows]
        batch[group.name] = tf.constant(images.reshape(-1, *shape[2:]))
    return batch


def distributed(run: Run, step: int) -> dict:
    """The global batch of a step, dealt out to the replicas."""
    count = run.strategy.num_replicas_in_sync
    parts = [batch_of(run.method, step, replica, count) for replica in range(count)]
    if count == 1:
        return parts[0]
    deal = run.strategy.experimental_distribute_values_from_function
    return {name: deal(lambda c, n=name: parts[c.replica_id_in_sync_group][n]) for name in parts[0]}


def stepper(run: Run) -> Callable[[range], list[dict[str, float]]]:
    """Takes some steps; returns the numbers of each, which are equal on every replica."""
    replica_fn = run.train_step()
    step = tf.function(lambda batch: run.strategy.run(replica_fn, (batch,)), autograph=False)
    names = [metric.name for metric in run.metrics]

    def take(i: int) -> dict[str, float]:
        results = run.strategy.experimental_local_results(step(distributed(run, i)))
        for result in results:
            np.testing.assert_array_equal(result, results[0])
        return dict(zip(names, results[0].numpy().tolist(), strict=True))

    return lambda steps: [take(i) for i in steps]


def train(run: Run, steps: range) -> list[dict[str, float]]:
    return stepper(run)(steps)


def values(run: Run) -> Values:
    """All that a checkpoint holds, which must be equal on every replica."""
    found = {}
    for group, variables in run.groups().items():
        for path, variable in variables.items():
            copies = run.strategy.experimental_local_results(variable.value)
            for copy in copies:
                np.testing.assert_array_equal(copy, copies[0], err_msg=f"{group}/{path}")
            found[f"{group}/{path}"] = copies[0].numpy()
    return found


def assert_equal_numbers(found: list[dict], expected: list[dict], tolerance: float = 1e-5) -> None:
    """Compares numbers, shares and cosines among them on a scale of 1."""
    for step, (numbers, wanted) in enumerate(zip(found, expected, strict=True)):
        assert list(numbers) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(
                numbers[name],
                value,
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{name} of step {step}",
            )


def assert_close(found: Values, expected: Values, tolerance: float = 3e-5) -> None:
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        error = np.linalg.norm(found[path] - value)
        scale = np.linalg.norm(value) + 1e-4
        assert error <= tolerance * scale, f"{path}: relative error {error / scale:.1e}"


@dataclasses.dataclass(frozen=True)
class Trained:
    """One replica after four steps, with what it held and said on the way.

    Attributes:
      factory: of the method.
      settings: of the run, beside the method.
      run: as it is after the last step.
      folder: of a checkpoint of step 2.
      fixed: the values of networks that are never trained, before the first step.
      after: all values after each number of steps, from 0 to 4.
      numbers: those of each step.
    """

    factory: Factory
    settings: dict[str, Any]
    run: Run
    folder: str
    fixed: list[np.ndarray]
    after: list[Values]
    numbers: list[dict[str, float]]


def trained_alone(factory: Factory, folder: pathlib.Path, **settings) -> Trained:
    """Trains one replica; the steps change what is trained."""
    run = assemble(factory, **settings)
    fixed = [variable.numpy() for variable in run.method.fixed.variables]
    take, after, numbers = stepper(run), [values(run)], []
    for step in range(4):
        numbers += take(range(step, step + 1))
        after.append(values(run))
        if step == 1:
            Checkpoints(str(folder), run.groups(), {}).save(2)
    trained = [f"{g}/{v.path}" for g, m in run.trained.items() for v in m.trainable_variables]
    assert any(not np.array_equal(after[2][path], after[0][path]) for path in trained)
    return Trained(factory, settings, run, str(folder), fixed, after, numbers)


def check_replicas(alone: Trained, replicas: int) -> None:
    """Numbers, weights and state are those of one replica with the same global batch."""
    together = assemble(alone.factory, simulated_replicas(replicas))
    assert_close(values(together), alone.after[0], tolerance=0.0)
    assert_equal_numbers(train(together, range(2)), alone.numbers[:2])
    assert_close(values(together), alone.after[2])


def check_resume(alone: Trained) -> None:
    """What goes on from a checkpoint ends bit for bit as what was never interrupted.

    The second process starts from other random values, so that all of them must be restored.
    """
    second = assemble(alone.factory, seed=1)
    before = values(second)
    assert any(not np.array_equal(before[path], value) for path, value in alone.after[2].items())
    assert Checkpoints(alone.folder, second.groups(), {}).restore() == 2
    assert train(second, range(2, 4)) == alone.numbers[2:]
    assert_close(values(second), alone.after[4], tolerance=0.0)


def check_lowering(factory: Factory) -> None:
    """One program is what every core of a TPU runs, and it replaces all state in its place."""
    run = assemble(
        factory, LoweringStrategy(8), global_batch_size=4 * BATCH, precision="mixed_bfloat16"
    )
    spec = {name: tf.TensorSpec([4], tf.int32) for name in ("labels", "index")}
    for group in run.method.views:
        spec[group.name] = tf.TensorSpec([group.count * 4, group.size, group.size, 3])
    program = lower(run.strategy, run.train_step(), spec)
    assert "stablehlo.all_reduce" in program.stablehlo and "bf16" in program.stablehlo
    for unwanted in ("f64", "?x", "dynamic_reshape", "custom_call"):
        assert unwanted not in program.stablehlo, unwanted
    updated = {id(variable) for variable in program.updated}
    assert all(id(variable.value) in updated for variable in run.method.state.values())


def check_pjrt(alone: Trained, steps: int = 2) -> None:
    """Two PJRT devices, which keep the variables, do what one of TensorFlow's does."""
    devices = create_strategy(cpu_replicas=2, tpu="none", runtime="pjrt")
    together = assemble(alone.factory, devices, **alone.settings)
    found = train_by_pjrt(together, range(steps))
    # XLA sums in another order.
    assert_equal_numbers(found, alone.numbers[:steps], tolerance=5e-5)
    assert_close(values(together), alone.after[steps], tolerance=2e-4)


def train_by_pjrt(run: Run, steps: range) -> list[dict[str, float]]:
    """Does the same as `train` on the devices of a PJRT client."""
    from simclr_tf.distribute.pjrt.client import value_of
    from simclr_tf.distribute.pjrt.program import DeviceProgram, DeviceVariables

    devices, names = run.strategy.devices, [metric.name for metric in run.metrics]
    spec = tf.nest.map_structure(
        tf.TensorSpec.from_tensor, batch_of(run.method, 0, 0, devices.count)
    )
    held = DeviceVariables(devices)
    program = DeviceProgram(lower(run.strategy, run.train_step(), spec), devices, held)
    numbers = []
    for i in steps:
        parts = [batch_of(run.method, i, r, devices.count) for r in range(devices.count)]
        tensors = zip(*map(tf.nest.flatten, parts), strict=True)
        (found,) = program([devices.parts([t.numpy() for t in parts]) for parts in tensors])
        numbers.append(dict(zip(names, value_of(found).tolist(), strict=True)))
    held.bring_home()
    return numbers


def check_microbatches(factory: Factory) -> None:
    """A batch in parts moves all as the whole does, or the request for parts is refused."""
    whole = assemble(without_batch_statistics(factory))
    if whole.method.embedded_specs is None:
        with pytest.raises(RequestError, match="must be None"):
            assemble(factory, microbatch_size=BATCH // 4)
        return
    parts = assemble(without_batch_statistics(factory), microbatch_size=BATCH // 4)
    assert parts.plan.num_microbatches == 4
    assert_equal_numbers(train(parts, range(1)), train(whole, range(1)))
    assert_close(values(parts), values(whole))


def without_batch_statistics(factory: Factory) -> Factory:
    """The method with batch normalization in inference mode, which keeps examples apart."""

    @functools.wraps(factory)  # which says what the factory asks for
    def build(**kwargs) -> Method:
        method = factory(**kwargs)
        for networks in (method.networks, method.followers, method.fixed):
            for model in networks.values():
                for layer in model._flatten_layers():
                    if isinstance(layer, SyncBatchNormalization):
                        layer.trainable = False
        return method

    return build


def check_variables(alone: Trained) -> None:
    """Followers and state are saved and not trained, fixed networks are neither.

    The memory of state does not grow with the number of replicas.
    """
    run, method = alone.run, alone.run.method
    saved = read_manifest(alone.folder, 2)["variables"]
    for name, model in method.followers.items():
        assert set(saved[name]) == {v.path for v in model.variables}
    assert set(saved.get("method", ())) == set(method.state)
    assert set(saved) == {
        *method.networks,
        *method.followers,
        "optimizer",
        *(["method"] if method.state else []),
    }
    trained, followers, fixed, state = (
        {id(v) for v in variables}
        for variables in (
            run.trained.variables,
            method.followers.variables,
            method.fixed.variables,
            method.state.values(),
        )
    )
    assert len(trained | followers | fixed | state) == sum(
        map(len, (trained, followers, fixed, state))
    )
    shapes = {name: value.shape for name, value in alone.after[0].items()}
    many = assemble(alone.factory, simulated_replicas(4))
    assert {name: value.shape for name, value in values(many).items()} == shapes


def check_what_is_fixed(alone: Trained) -> None:
    """Steps leave fixed networks as they are, to the byte."""
    for variable, value in zip(alone.run.method.fixed.variables, alone.fixed, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)


def check_export(alone: Trained, folder: pathlib.Path) -> None:
    """The SavedModel gives the representation of the trained encoder."""
    run = alone.run
    exported = run.method.exported()
    path = export_networks(
        str(folder),
        1,
        exported,
        lambda: run.rebuild().exported(),
        image_size=IMAGE_SIZE,
        recipe="",
        class_names=run.plan.source.class_names if "classifier" in exported else None,
    )
    images = np.random.default_rng(0).random((3, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    expected = run.method.networks["encoder"](images, training=False)["final_avg_pool"]
    found = tf.saved_model.load(path)(tf.constant(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def check_metrics(factory: Factory) -> None:
    """Each number is declared once, and is the sum over replicas of what are said to be shares."""
    alone, together = assemble(factory), assemble(factory, simulated_replicas(2))
    names = [metric.name for metric in alone.metrics]
    assert len(names) == len(set(names))
    (expected,), found = numbers_of(alone), numbers_of(together)
    for metric in alone.method.metrics:
        shares = [numbers[metric.name] for numbers in found]
        assert metric.whole <= (shares[0] == shares[1])
        number = shares[0] if metric.whole else sum(shares)
        assert number == pytest.approx(expected[metric.name], rel=1e-5, abs=1e-6), metric.name
    told = alone.method.words(dict.fromkeys([*names, "loss_chance"], 1.0))
    assert "1.0" in told
    limits = alone.method.expected(BATCH)
    assert limits is None or (math.isfinite(limits[1]) and limits[1] < limits[0])


def numbers_of(run: Run) -> list[dict[str, float]]:
    """What the loss says on each replica, and what it says it of."""
    method = run.method

    def replica_fn(batch):
        targets = method.targets(batch)
        embedded = method.embed(batch, training=True)
        representation = embedded.pop("representation")
        assert representation.shape[0] == method.embedded_views * batch["labels"].shape[0]
        assert representation.dtype == tf.float32
        for specs, tensors in (
            (method.embedded_specs, embedded),
            (method.target_specs, targets),
        ):
            for name, spec in (specs or {}).items():
                rows = spec.shape[0] * batch["labels"].shape[0]
                assert tensors[name].shape == (rows, *spec.shape[1:]), name
                assert tensors[name].dtype == spec.dtype, name
        loss, numbers = method.loss(embedded, targets)
        assert list(numbers) == [metric.name for metric in method.metrics[1:]]
        return {method.metrics[0].name: loss} | numbers

    call = tf.function(lambda batch: run.strategy.run(replica_fn, (batch,)), autograph=False)
    found = call(distributed(run, 0))
    local = {name: run.strategy.experimental_local_results(v) for name, v in found.items()}
    count = run.strategy.num_replicas_in_sync
    return [{name: float(parts[i]) for name, parts in local.items()} for i in range(count)]
