"""If this breaks, float16 trains on gradients that vanished or overflowed, or ends for them."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP
from simclr_tf.methods.supervised import Supervised
from simclr_tf.models.heads import linear_probe
from simclr_tf.models.networks import Networks
from simclr_tf.training.checkpoints import Checkpoints, named_groups, read_manifest
from simclr_tf.training.loop import make_loop
from simclr_tf.training.loss_scale import apply_scaled, rule_of, with_loss_scale
from simclr_tf.training.step import make_train_step, step_metrics

HALF = "mixed_float16"
BATCH, SIZE = 8, 16
TOO_LARGE = 2.0**30


class Run:
    """A tiny network, its optimizer and its loop, on the same batch again and again."""

    def __init__(self, build_tiny, precision, replicas=1, parts=1):
        strategy = simulated_replicas(replicas)
        with strategy.scope():
            tiny = build_tiny(rate=0.1, precision=precision)
            self.trainable = tiny.networks.trainable_variables
            self.optimizer = with_loss_scale(tiny.optimizer, self.trainable, precision)
        tiny = dataclasses.replace(tiny, optimizer=self.optimizer)
        loop = make_loop(strategy, tiny.step(num_microbatches=parts), tiny.names)
        batches = iter(strategy.distribute_datasets_from_function(_batches))
        self.train = functools.partial(loop, batches)

    def taught(self) -> dict[str, np.ndarray]:
        """What an update changes: all but moving statistics and the scaling."""
        groups = named_groups({}, self.optimizer)
        variables = {v.path: v for v in self.trainable} | groups["optimizer"]
        return {path: v.numpy() for path, v in variables.items()}

    @property
    def scale(self) -> float:
        return float(self.optimizer.dynamic_scale.numpy())


def _batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    images = rng.random((2, BATCH, SIZE, SIZE, 3), np.float32)
    labels = rng.integers(0, 3, BATCH).astype(np.int32)
    own = BATCH // context.num_replicas_in_sync
    by_replica = images.reshape(2, -1, own, SIZE, SIZE, 3).swapaxes(0, 1)
    parts = {
        "images": by_replica.reshape(-1, 2 * own, SIZE, SIZE, 3),
        "labels": labels.reshape(-1, own),
        "index": np.arange(BATCH, dtype=np.int32).reshape(-1, own),
    }
    return tf.data.Dataset.from_tensor_slices(parts).repeat()


@pytest.fixture(scope="module")
def in_float32(build_tiny):
    """Parts of a batch -> the run of one replica, and what its first step came to."""

    @functools.cache
    def run(parts):
        run = Run(build_tiny, "float32", parts=parts)
        return run, run.train(1)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("replicas", "parts"), [(1, 1), (2, 1), (1, 2)])
def test_a_step_is_that_of_float32_on_one_replica(build_tiny, in_float32, replicas, parts):
    """To what half precision leaves where few small images are normalized by each other.

    A scale left in a gradient would show in the variables that LARS excludes.
    """
    run, (full, expected) = Run(build_tiny, HALF, replicas, parts), in_float32(parts)
    run.optimizer.dynamic_scale.assign(256.0)
    found = run.train(1)
    assert found.first_bad is None and found.metrics["skipped_updates"] == 0
    assert found.metrics["loss_scale"] == run.scale == 256
    for name, value in expected.metrics.items():
        assert found.metrics[name] == pytest.approx(value, rel=0.02, abs=0.02), name
    velocities = [
        np.concatenate([v.numpy().ravel() for v in rule_of(optimizer).velocities])
        for optimizer in (run.optimizer, full.optimizer)
    ]
    error = np.linalg.norm(velocities[0] - velocities[1]) / np.linalg.norm(velocities[1])
    assert error < 0.1, f"relative error {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize(("replicas", "parts"), [(2, 1), (1, 2)])
def test_an_overflow_skips_the_update_and_halves_the_scale(build_tiny, replicas, parts):
    run = Run(build_tiny, HALF, replicas, parts)
    run.optimizer.dynamic_scale.assign(TOO_LARGE)
    run.optimizer.step_counter.assign(7)
    before = run.taught()
    result = run.train(1)
    for path, value in run.taught().items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    assert run.scale == TOO_LARGE / 2 and int(run.optimizer.step_counter.numpy()) == 0
    assert result.first_bad is None and all(map(np.isfinite, result.metrics.values()))
    assert result.metrics["skipped_updates"] == 1 and result.metrics["gradient_norm"] == 0

    result = run.train(25)
    assert result.first_bad is None and 0 < result.metrics["skipped_updates"] < 1
    assert 1 < run.scale < TOO_LARGE / 4
    updates = round(25 * (1 - result.metrics["skipped_updates"]))
    assert int(rule_of(run.optimizer).iterations.numpy()) == updates > 5
    assert any(not np.array_equal(v, before[path]) for path, v in run.taught().items())


def test_what_overflows_without_a_scale_has_diverged():
    kernel = keras.Variable([1.0, 2.0])
    optimizer = with_loss_scale(keras.optimizers.SGD(0.5), [kernel], HALF)
    gradients = [tf.constant([np.inf, 1.0])]
    skipped = [apply_scaled(optimizer, gradients, [kernel])["skipped_updates"] for _ in range(16)]
    np.testing.assert_array_equal(skipped, [1.0] * 15 + [np.nan])  # from 2**15 to 1
    np.testing.assert_array_equal(kernel, [1.0, 2.0])


def test_the_scale_doubles_after_two_thousand_updates():
    kernel = keras.Variable([1.0, 2.0])
    optimizer = with_loss_scale(keras.optimizers.SGD(0.5), [kernel], HALF)
    optimizer.step_counter.assign(1990)
    for _ in range(10):
        assert float(optimizer.dynamic_scale.numpy()) == 2**15
        optimizer.apply([tf.constant([2.0**15, 0.0])])
    assert float(optimizer.dynamic_scale.numpy()) == 2**16
    np.testing.assert_array_equal(kernel, [1.0 - 0.5 * 10, 2.0])


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_other_precisions_have_no_scale(precision):
    rule = keras.optimizers.SGD(0.1)
    assert with_loss_scale(rule, [], precision) is rule
    assert "loss_scale" not in named_groups({}, rule)


def test_the_scale_is_saved_and_restored(tmp_path):
    def optimizer():
        rule = keras.optimizers.SGD(0.5, momentum=0.9)
        variables = [keras.Variable([1.0], name="kernel")]
        rule.build(variables)
        return with_loss_scale(rule, variables, HALF)

    before, after = optimizer(), optimizer()
    before.dynamic_scale.assign(64.0)
    before.step_counter.assign(5)
    before.inner_optimizer.iterations.assign(9)
    Checkpoints(str(tmp_path), named_groups({}, before), {}).save(3)
    assert set(read_manifest(str(tmp_path), 3)["variables"]["loss_scale"]) == {
        "scale",
        "updates_since",
    }
    assert Checkpoints(str(tmp_path), named_groups({}, after), {}).restore() == 3
    assert float(after.dynamic_scale) == 64 and int(after.step_counter) == 5
    assert int(after.inner_optimizer.iterations) == 9


def test_an_overflow_on_one_replica_stops_a_classifier_on_all():
    """Only the second replica's images have labels, so that the first one's gradient is zero."""
    strategy = simulated_replicas(2)
    with strategy.scope():
        method = tiny_classifier()
        trainable = method.networks.trainable_variables
        rule = keras.optimizers.SGD(0.1, momentum=0.9)
        rule.build(trainable)
        optimizer = with_loss_scale(rule, trainable, HALF)
        optimizer.dynamic_scale.assign(TOO_LARGE)
    step = make_train_step(method, optimizer)
    names = [metric.name for metric in step_metrics(method, optimizer)]
    images = np.random.default_rng(0).random((2, 4, SIZE, SIZE, 3), np.float32)
    labels = np.array([[-1] * 4, [0, 1, 2, 0]], np.int32)
    batch = {
        name: strategy.experimental_distribute_values_from_function(
            lambda c, a=array: tf.constant(a[c.replica_id_in_sync_group])
        )
        for name, array in (("images", images), ("labels", labels))
    }
    before = [v.numpy() for v in trainable]
    numbers = tf.function(lambda b: strategy.run(step, args=(b,)))(batch)
    for result in strategy.experimental_local_results(numbers):
        found = dict(zip(names, result.numpy(), strict=True))
        assert found["skipped_updates"] == 1 and found["loss_scale"] == TOO_LARGE
    for variable, value in zip(trainable, before, strict=True):
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_array_equal(copy, value)
    assert float(optimizer.dynamic_scale.numpy()) == TOO_LARGE / 2


def tiny_classifier() -> Supervised:
    with dtype_policy(HALF):
        images = keras.Input((SIZE, SIZE, 3))
        h = keras.layers.Dense(8)(keras.layers.Flatten()(images))
        h = keras.layers.Activation("linear", dtype="float32")(h)
        encoder = keras.Model(images, {"final_avg_pool": h})
    networks = {"encoder": encoder, "probe": linear_probe(3, input_dim=8)}
    views = ViewGroup("images", [CROP_AND_FLIP], SIZE)
    return Supervised(Networks(networks, classifiers=("probe",)), [views])
