"""SyncBatchNormalization against float64 NumPy, against Keras, and against itself on R replicas."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import (
    SyncBatchNormalization,
    moving_statistics_frozen,
    separate_statistics,
)
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.models.resnet import resnet
from tests.support.threads import entered_elsewhere

MOMENTUM, EPSILON, CHANNELS = 0.9, 1e-5, 3


def inputs(shape=(16, 5, 5, CHANNELS), offset=0.0, scale=1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(offset, scale, shape).astype(np.float32)


def oracle(x, gamma, beta, dy):
    """Training-mode batch normalization and its gradients, from the textbook, in float64."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    deviation = 1 / np.sqrt(variance + EPSILON)
    x_hat = (x - mean) * deviation
    d_hat = dy * gamma
    dx = deviation * (d_hat - d_hat.mean(axes) - x_hat * (d_hat * x_hat).mean(axes))
    return {
        "y": x_hat * gamma + beta,
        "dx": dx,
        "dgamma": (dy * x_hat).sum(axes),
        "dbeta": dy.sum(axes),
        "moving_mean": (1 - MOMENTUM) * mean,
        "moving_variance": MOMENTUM + (1 - MOMENTUM) * variance,
    }


GAMMA = np.linspace(0.5, 1.5, CHANNELS).astype(np.float32)
BETA = np.linspace(-1, 1, CHANNELS).astype(np.float32)


def train_once(
    replicas: int, x: np.ndarray, dy: np.ndarray, gamma=GAMMA, beta=BETA, dtype="float32", groups=1
) -> dict[str, np.ndarray]:
    """One training-mode call and its gradients, with x and dy split over the replicas."""
    strategy = simulated_replicas(replicas)
    with strategy.scope():
        layer = SyncBatchNormalization(dtype=dtype)
        layer.build((*x.shape[:-1], len(gamma)))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)

    def split(array):
        parts = np.split(array, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            with separate_statistics(groups):
                y = layer(x, training=True)
        dx, dgamma, dbeta = tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)
        return {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}

    results = tf.function(lambda *a: strategy.run(step, a))(split(x), split(dy))
    per_replica = {
        name: np.stack(strategy.experimental_local_results(value))
        for name, value in results.items()
    }
    moving = {}
    for name in ("moving_mean", "moving_variance"):
        copies = strategy.experimental_local_results(getattr(layer, name).value)
        assert all(np.array_equal(copies[0], copy) for copy in copies)
        moving[name] = copies[0].numpy()
    return {
        "y": np.concatenate(per_replica["y"]),
        "dx": np.concatenate(per_replica["dx"]),
        "dgamma": per_replica["dgamma"].sum(0),
        "dbeta": per_replica["dbeta"].sum(0),
        **moving,
    }


def assert_near(actual: dict, expected: dict, tolerance: float, names=None) -> None:
    """Each value as one vector."""
    for name in names or expected:
        error = np.linalg.norm(actual[name] - expected[name]) / np.linalg.norm(expected[name])
        assert error < tolerance, f"{name}: relative error {error:.1e}"


def assert_equal(actual: dict, expected: dict, tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(
            actual[name], value, rtol=0, atol=tolerance * scale, err_msg=name
        )


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("shape", [(16, 5, 5, CHANNELS), (16, CHANNELS), (8, 6, CHANNELS)])
def test_training_equals_numpy(replicas, shape):
    x = inputs(shape, offset=3.0, scale=2.0)
    dy = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert_equal(train_once(replicas, x, dy), oracle(x, GAMMA, BETA, dy))


@pytest.mark.parametrize("replicas", [1, 2])
def test_large_offset(replicas):
    """Mean 1000, standard deviation 0.1: float32 holds it, E[x^2] - E[x]^2 does not."""
    x = inputs(offset=1000.0, scale=0.1)
    dy = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    actual, expected = train_once(replicas, x, dy), oracle(x, GAMMA, BETA, dy)
    np.testing.assert_allclose(actual["y"], expected["y"], atol=0.02)
    np.testing.assert_allclose(actual["dx"], expected["dx"], atol=0.02 / 0.1)
    np.testing.assert_allclose(actual["moving_variance"], expected["moving_variance"], rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 6, 6, 8), (64, 8)])
@pytest.mark.parametrize(("far", "tolerance"), [(0, 1e-6), (1000, 5e-5)])
def test_four_replicas_are_exact(shape, far, tolerance):
    """With means of up to `far` deviations."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.1 * np.linspace(-far, far, shape[-1]), 0.1, shape).astype(np.float32)
    dy = rng.normal(size=shape).astype(np.float32)
    gamma, beta = rng.normal(size=[2, shape[-1]]).astype(np.float32)
    actual = train_once(4, x, dy, gamma, beta)
    assert_near(actual, oracle(x, gamma, beta, dy), tolerance)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("shape", [(16, 5, 5, CHANNELS), (32, CHANNELS)])
def test_half_precision_rounds_what_goes_in_and_out(replicas, dtype, tolerance, shape):
    """And nothing between, so that sums over the batch are those of float32."""
    x = np.asarray(tf.cast(inputs(shape, offset=3.0, scale=2.0), dtype))
    dy = np.asarray(tf.cast(np.random.default_rng(1).normal(size=shape), dtype))
    actual = train_once(replicas, x, dy, dtype=f"mixed_{dtype}")
    expected = oracle(x, GAMMA, BETA, dy)
    assert actual["y"].dtype == actual["dx"].dtype == x.dtype
    actual = {name: value.astype(np.float64) for name, value in actual.items()}
    assert_near(actual, expected, tolerance, ("y", "dx"))
    assert_near(actual, expected, 1e-5, ("dgamma", "dbeta", "moving_mean", "moving_variance"))


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_row_a_replica(replicas):
    x = inputs((replicas, CHANNELS), offset=3.0)
    dy = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    expected = oracle(x, GAMMA, BETA, dy)
    if replicas == 1:  # whose gradients are zero, and in float32 nearly
        expected = {n: expected[n] for n in ("y", "dbeta", "moving_mean", "moving_variance")}
    assert_equal(train_once(replicas, x, dy), expected)


def test_one_collective_each_way_and_fused_kernels():
    """In a network's pass forward and back on two replicas, whose collectives are ops."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        network = resnet(depth=18, width_multiplier=0.125, image_size=16)

    def step():
        with tf.GradientTape() as tape:
            h = network(tf.ones([2, 16, 16, 3]), training=True)["final_avg_pool"]
        return tape.gradient(h, [v.value for v in network.trainable_variables])

    graph = tf.function(lambda: strategy.run(step)).get_concrete_function().graph
    kinds = collections.Counter(op.type for op in graph.get_operations())
    layers = sum(isinstance(layer, SyncBatchNormalization) for layer in network._flatten_layers())
    assert layers == 21
    assert {kind: n for kind, n in kinds.items() if "Collective" in kind or "Norm" in kind} == {
        "CollectiveReduceV2": 2 * 2 * layers,
        "FusedBatchNormV3": 2 * 3 * layers,
        "FusedBatchNormGradV3": 2 * layers,
    }


def test_large_offset_under_xla():
    """Where the moving mean is ten standard deviations away."""
    x = inputs(offset=1000.0, scale=0.1)
    layer = SyncBatchNormalization()
    layer.build(x.shape)
    layer.moving_mean.assign(np.full(CHANNELS, 999.0))
    y = tf.function(lambda x: layer(x, training=True), jit_compile=True)(x)
    np.testing.assert_allclose(y, oracle(x, 1.0, 0.0, x)["y"], atol=0.02)


def test_the_moving_mean_comes_near_enough_by_itself():
    """From the start, at mean 10 and deviation 0.1, and for ever after some steps."""
    x = inputs(offset=10.0, scale=0.1)
    layer = SyncBatchNormalization(epsilon=EPSILON)
    layer.build(x.shape)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    expected = oracle(x, 1.0, 0.0, x)["y"]
    np.testing.assert_allclose(step(x), expected, atol=0.02)
    for _ in range(50):
        step(x)
    np.testing.assert_allclose(step(x), expected, atol=1e-4)


@pytest.mark.parametrize("replicas", [1, 2])
def test_copies_of_a_channel_in_the_kernels(replicas):
    plain = inputs((4, 6, 8, CHANNELS), offset=3.0, scale=2.0)
    dy = np.random.default_rng(1).normal(size=plain.shape).astype(np.float32)
    packed = (4, 6, 4, 2 * CHANNELS)
    actual = train_once(replicas, plain.reshape(packed), dy.reshape(packed))
    actual |= {name: actual[name].reshape(plain.shape) for name in ("y", "dx")}
    assert_equal(actual, oracle(plain, GAMMA, BETA, dy))


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_of_a_channel_are_one_channel(copies):
    """Packed columns (see models.packing) are normalized as the plain ones that they are."""
    plain = inputs((4, 6, 8, CHANNELS), offset=3.0, scale=2.0)
    dy = np.random.default_rng(1).normal(size=plain.shape).astype(np.float32)
    layer = SyncBatchNormalization()
    layer.build(plain.shape)
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)

    @tf.function(jit_compile=True)
    def run(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        dx, dgamma, dbeta = tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)
        return {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}

    packed = (4, 6, 8 // copies, copies * CHANNELS)
    actual = run(tf.reshape(plain, packed), tf.reshape(dy, packed))
    actual |= {n: tf.reshape(actual[n], plain.shape) for n in ("y", "dx")}
    actual |= {n: getattr(layer, n).numpy() for n in ("moving_mean", "moving_variance")}
    assert_equal(actual, oracle(plain, GAMMA, BETA, dy))
    inference = tf.reshape(layer(tf.reshape(plain, packed)), plain.shape)
    np.testing.assert_allclose(inference, layer(plain), rtol=1e-5, atol=1e-5)


def test_equals_keras_over_several_steps():
    ours = SyncBatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    theirs = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(seed, 1, (8, 4, 4, 5)).astype(np.float32)
        np.testing.assert_allclose(
            ours(x, training=True), theirs(x, training=True), rtol=1e-4, atol=1e-5
        )
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_inference_uses_and_keeps_the_moving_statistics():
    layer = SyncBatchNormalization()
    x = inputs()
    layer.build(x.shape)
    layer.moving_mean.assign(BETA)
    layer.moving_variance.assign(GAMMA)
    np.testing.assert_allclose(
        layer(x), (x - BETA) / np.sqrt(GAMMA + EPSILON), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(layer.moving_mean, BETA)
    np.testing.assert_array_equal(layer.moving_variance, GAMMA)


def test_frozen_does_not_move_even_in_training():
    layer = SyncBatchNormalization(trainable=False)
    x = inputs(offset=5.0)
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1 + EPSILON), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(CHANNELS))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(CHANNELS))
    assert not layer.trainable_variables


@pytest.mark.parametrize("replicas", [1, 2])
def test_bfloat16_compute_keeps_float32_statistics(replicas):
    layer_dtype = keras.DTypePolicy("mixed_bfloat16")
    strategy = simulated_replicas(replicas)
    with strategy.scope():
        layer = SyncBatchNormalization(dtype=layer_dtype)
        layer.build((None, CHANNELS))
    x = inputs((64, CHANNELS), offset=2.0)
    parts = np.split(x, replicas)
    value = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    out = tf.function(lambda x: strategy.run(layer, (x,), {"training": True}))(value)
    y = np.concatenate([t.numpy() for t in strategy.experimental_local_results(out)])

    assert y.dtype == tf.bfloat16.as_numpy_dtype
    assert all(v.dtype == "float32" for v in layer.variables)
    rounded = x.astype(tf.bfloat16.as_numpy_dtype).astype(np.float64)
    expected = oracle(rounded, 1.0, 0.0, rounded)
    np.testing.assert_allclose(y.astype(np.float64), expected["y"], atol=0.02)
    # Far closer than the 8 bits of bfloat16 would allow.
    np.testing.assert_allclose(layer.moving_mean, expected["moving_mean"], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, expected["moving_variance"], rtol=1e-5)


def test_options_and_config_round_trip():
    layer = SyncBatchNormalization(0.5, 1e-3, center=False, scale=False, gamma_initializer="zeros")
    copy = SyncBatchNormalization.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    x = inputs((4, 2))
    copy(x)
    assert [v.name for v in copy.variables] == ["moving_mean", "moving_variance"]
    zero = SyncBatchNormalization(gamma_initializer="zeros")
    np.testing.assert_array_equal(zero(x, training=True), np.zeros_like(x))
    assert [v.name for v in zero.variables] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]


def test_in_a_functional_model_saved_and_loaded(tmp_path):
    images = keras.Input((None, None, CHANNELS))
    model = keras.Model(images, SyncBatchNormalization(name="bn")(images))
    x = inputs()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [v.path for v in model.variables] == [
        "bn/gamma",
        "bn/beta",
        "bn/moving_mean",
        "bn/moving_variance",
    ]


def test_model_made_under_a_strategy_is_traced_without_collectives():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        images = keras.Input((None, None, CHANNELS))
        model = keras.Model(images, SyncBatchNormalization()(images))
    function = tf.function(lambda x: model(x, training=True))
    graph = function.get_concrete_function(tf.TensorSpec([None, 4, 4, CHANNELS])).graph
    operations = {operation.type for operation in graph.get_operations()}
    assert not {name for name in operations if "Collective" in name or "Nccl" in name}
    assert "FusedBatchNormV3" in operations


def test_rejects_unknown_channels():
    with pytest.raises(ValueError, match=r"known last axis. Received: input_shape=\(None, None\)"):
        SyncBatchNormalization().build((None, None))


def test_inference_is_the_same_under_xla():
    """There an affine form stands for the kernel."""
    layer = SyncBatchNormalization()
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 6)).astype(np.float32)
    layer.build(x.shape)
    layer.set_weights([np.random.default_rng(i).uniform(0.5, 2, 6) for i in range(4)])
    compiled = tf.function(lambda x: layer(x, training=False), jit_compile=True)
    np.testing.assert_allclose(compiled(x), layer(x, training=False), rtol=1e-5, atol=1e-5)


def test_statistics_are_frozen_in_one_thread_alone():
    layer = SyncBatchNormalization()
    x = inputs(offset=3.0)
    layer.build(x.shape)

    def moved() -> bool:
        layer.moving_mean.assign(tf.zeros([CHANNELS]))
        layer(x, training=True)
        return bool(tf.reduce_all(layer.moving_mean != 0.0))

    assert moved()
    with entered_elsewhere(moving_statistics_frozen()):
        assert moved()
    with moving_statistics_frozen():
        assert not moved()
