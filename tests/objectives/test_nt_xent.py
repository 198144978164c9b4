"""NT-Xent against eq. 1 of the paper, the reference's numbers, and itself on R replicas."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.models.heads import projection_head
from simclr_tf.objectives.nt_xent import NTXent, nt_xent
from simclr_tf.objectives.view_metrics import METRICS
from tests.support.differences import slope


@pytest.fixture(params=[None, 3], ids=["at once", "in blocks"])
def blocks(request):
    """All anchors at once, and 3 at a time, which seldom divides them: no number may change."""
    gin.bind_parameter("nt_xent.block_size", request.param)


at_once_and_in_blocks = pytest.mark.usefixtures("blocks")


def loss_of(z, temperature: float = 0.1, images=None, **kwargs):
    """This replica's share, and the metrics, by the loss that gin's factory gives."""
    return nt_xent(temperature, **kwargs)(tf.convert_to_tensor(z), images)


def oracle(z: np.ndarray, temperature: float, images=None) -> dict[str, float]:
    """Eq. 1 in loops and float64: z [2G, P], view 1 of all examples and then view 2.

    Views of the same of `images` [G] are no negatives of each other.
    """
    z = z.astype(np.float64)
    images = np.tile(np.arange(len(z) // 2) if images is None else images, 2)
    count, half = len(z), len(z) // 2
    norms = np.sqrt((z**2).sum(1))

    def sim(i, k):
        return z[i] @ z[k] / (norms[i] * norms[k])

    losses, top1, top5, positives, negatives = [], [], [], [], []
    for i in range(count):
        j = (i + half) % count
        others = [k for k in range(count) if k == j or images[k] != images[i]]
        losses.append(
            -math.log(
                math.exp(sim(i, j) / temperature)
                / sum(math.exp(sim(i, k) / temperature) for k in others)
            )
        )
        better = sum(sim(i, k) >= sim(i, j) for k in others if k != j)
        top1.append(better < 1)
        top5.append(better < 5)
        positives.append(sim(i, j))
        if len(others) > 1:
            negatives.append(np.mean([sim(i, k) for k in others if k != j]))
    unit = z / norms[:, None]
    moments = np.linalg.eigvalsh(unit.T @ unit)
    return {
        "loss": np.mean(losses),
        "contrastive_top1": np.mean(top1),
        "contrastive_top5": np.mean(top5),
        "positive_cosine": np.mean(positives),
        "negative_cosine": np.sum(negatives) / count,
        "embedding_std": unit.std(0).mean() * math.sqrt(z.shape[1]),
        "effective_rank": moments.sum() ** 2 / (moments**2).sum(),
    }


def numerical_gradient(z: np.ndarray, temperature: float, images=None) -> np.ndarray:
    """Central differences of the oracle in float64."""
    gradient = np.zeros(z.shape)
    for index in np.ndindex(*z.shape):
        gradient[index] = slope(lambda z: oracle(z, temperature, images)["loss"], z, index)
    return gradient


def embeddings(global_batch: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Two noisy views, [2G, P]."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(global_batch, dim))
    views = base + rng.normal(size=(2, global_batch, dim))
    return views.reshape(2 * global_batch, dim).astype(np.float32)


def value_and_gradient(z, temperature=0.1, images=None, **kwargs):
    z = tf.convert_to_tensor(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss, metrics = loss_of(z, temperature, images, **kwargs)
    return loss, tape.gradient(loss, z), metrics


def by_replica(array: np.ndarray, replicas: int) -> np.ndarray:
    """[2G, ...] to [R, 2B, ...], each replica with both views of its own examples."""
    views = array.reshape(2, replicas, -1, *array.shape[1:])
    return np.swapaxes(views, 0, 1).reshape(replicas, -1, *array.shape[1:])


def whole(parts: list, replicas: int) -> np.ndarray:
    """The inverse of `by_replica`."""
    parts = np.stack(parts).reshape(replicas, 2, -1, *parts[0].shape[1:])
    return np.swapaxes(parts, 0, 1).reshape(-1, *parts.shape[3:])


def distribute(strategy: tf.distribute.Strategy, array: np.ndarray):
    parts = by_replica(array, strategy.num_replicas_in_sync)
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )


@at_once_and_in_blocks
@pytest.mark.parametrize("global_batch", [2, 3, 8])
@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 1.0])
def test_equals_equation_1(global_batch, dim, temperature):
    z = embeddings(global_batch, dim)
    expected = oracle(z, temperature)
    loss, metrics = loss_of(z, temperature)
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        assert value.dtype == tf.float32 and value.shape == ()
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


@at_once_and_in_blocks
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_gradient_equals_finite_differences(temperature):
    z = embeddings(4, 5)
    _, gradient, _ = value_and_gradient(z, temperature)
    expected = numerical_gradient(z, temperature)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# An image three times, another twice; one image alone; numbers beyond what float32 holds exactly.
REPEATED = {
    "some": [3, 1, 3, 2, 1, 0, 3, 5],
    "one image": [4] * 8,
    "large numbers": [2**24, 2**24 + 1, 2**31 - 1, 2**31 - 2, 2**24, 2**30, 7, 2**16],
}


@at_once_and_in_blocks
@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("images", REPEATED.values(), ids=REPEATED)
def test_views_of_one_image_are_no_negatives(images, replicas):
    """A batch that spans two epochs holds some images twice."""
    z, images = embeddings(8, 5), np.array(images, np.int32)
    strategy = simulated_replicas(replicas)
    parts = images.reshape(replicas, -1)
    numbers = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    run = tf.function(lambda *a: strategy.run(lambda z, i: value_and_gradient(z, 0.5, i), a))
    loss, gradient, metrics = run(distribute(strategy, z), numbers)
    expected = oracle(z, 0.5, images)
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    gradient = whole(strategy.experimental_local_results(gradient), replicas)
    expected = numerical_gradient(z, 0.5, images)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5)


def variant_oracle(z, images, decoupled: bool, small=None, temperature: float = 0.5) -> float:
    """The mean over pairs in loops and float64: the large views, and small ones against them.

    A small view [V*G, P] picks either large view of its image. If decoupled, the sum in the
    denominator is over negatives alone.
    """
    unit = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    count, half = len(unit), len(unit) // 2
    pairs = [(unit[i], images[i % half], (i + half) % count) for i in range(count)]
    for row, view in enumerate(() if small is None else small.astype(np.float64)):
        view, own = view / np.linalg.norm(view), row % half
        pairs += [(view, images[own], own), (view, images[own], own + half)]
    losses = []
    for anchor, image, positive in pairs:
        similarity = np.exp(unit @ anchor / temperature)
        others = [k for k in range(count) if images[k % half] != image]
        against = others if decoupled else [*others, positive]
        losses.append(math.log(similarity[against].sum() / similarity[positive]) if others else 0)
    return np.mean(losses)


@at_once_and_in_blocks
@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
@pytest.mark.parametrize("views", [0, 3], ids=["two views", "multi-crop"])
def test_variants_equal_their_definition(replicas, decoupled, views):
    images = np.array([3, 1, 3, 2, 7, 0, 9, 5], np.int32)
    z = embeddings(8, 5)
    small = np.random.default_rng(5).normal(size=(views * 8, 5)).astype(np.float32)
    strategy = simulated_replicas(replicas)
    parts = images.reshape(replicas, -1)
    by_view = small.reshape(views, replicas, 8 // replicas, 5)
    by_view = np.swapaxes(by_view, 0, 1).reshape(replicas, views * 8 // replicas, 5)

    def share(z):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.gather(tf.constant(by_view), replica) if views else None
        numbers = tf.gather(tf.constant(parts), replica)
        with tf.GradientTape() as tape:
            tape.watch([z] if own is None else [z, own])
            loss, _ = NTXent(0.5, decoupled=decoupled)(z, numbers, own)
        return loss, tape.gradient(loss, z)

    loss, gradient = tf.function(lambda z: strategy.run(share, (z,)))(distribute(strategy, z))

    def expected(z):
        return variant_oracle(z, images, decoupled, small if views else None)

    found = strategy.reduce("SUM", loss, axis=None)
    np.testing.assert_allclose(found, expected(z), rtol=2e-5)
    gradient = whole(strategy.experimental_local_results(gradient), replicas)
    for index in [(0, 0), (3, 4), (10, 2)]:
        by_element = slope(expected, z, index)
        np.testing.assert_allclose(gradient[index], by_element, rtol=0, atol=1e-5)


def test_the_small_views_have_a_gradient():
    z, small = embeddings(4, 5), tf.constant(embeddings(4, 5, seed=9))
    images = np.arange(4)
    with tf.GradientTape() as tape:
        tape.watch(small)
        loss, _ = NTXent(0.5)(tf.constant(z), None, small)
    gradient, step = tape.gradient(loss, small), 1e-4
    for index in [(0, 1), (6, 3)]:
        shift = np.zeros(small.shape)
        shift[index] = step
        above, below = (
            variant_oracle(z, images, False, small.numpy().astype(np.float64) + sign * shift)
            for sign in (1, -1)
        )
        np.testing.assert_allclose(gradient[index], (above - below) / (2 * step), atol=1e-5)


@at_once_and_in_blocks
def test_decoupled_without_negatives_teaches_nothing():
    loss, gradient, _ = value_and_gradient(
        embeddings(3), images=np.array([4, 4, 4], np.int32), decoupled=True
    )
    assert loss == 0 and not gradient.numpy().any()


@pytest.mark.parametrize("global_batch", [2, 64])
def test_chance_and_floor_of_the_decoupled_loss(global_batch):
    orthogonal = np.tile(np.eye(global_batch, dtype=np.float32), (2, 1))
    same = np.ones([2 * global_batch, 8], np.float32)
    objective = NTXent(0.2, decoupled=True)
    for z, expected in (
        (orthogonal, objective.floor(global_batch)),
        (same, objective.chance(global_batch)),
    ):
        np.testing.assert_allclose(objective(tf.constant(z))[0], expected, rtol=1e-5)


@at_once_and_in_blocks
def test_a_batch_without_repeats_is_as_without_numbers():
    z = embeddings(8, 5)
    images = np.random.default_rng(0).permutation(100)[:8].astype(np.int32)
    plain, numbered = value_and_gradient(z), value_and_gradient(z, images=images)
    for a, b in zip(tf.nest.flatten(plain), tf.nest.flatten(numbered), strict=True):
        np.testing.assert_array_equal(a, b)


@at_once_and_in_blocks
def test_equals_the_reference(goldens):
    """Losses and gradients of google-research/simclr, which are twice the paper's."""
    for case in json.loads((goldens / "loss_lars_schedule.json").read_text())["nt_xent"]:
        count, dim = case["images"], case["dim"]
        i = np.arange(2 * count * dim)
        z = np.sin(0.71 * i + 0.3 * (i // dim)).astype(np.float32).reshape(2 * count, dim)
        loss, gradient, _ = value_and_gradient(z, case["temperature"], reduction="reference")
        np.testing.assert_allclose(loss, case["loss_sum_of_both_directions"], rtol=1e-5)
        np.testing.assert_allclose(tf.norm(gradient), case["gradient_norm"], rtol=1e-5)
        for row, name in ((0, "gradient_row0"), (-1, "gradient_last_row")):
            atol = 1e-5 * np.abs(case[name]).max()
            np.testing.assert_allclose(gradient[row], case[name], rtol=0, atol=atol)
        paper, _ = loss_of(z, case["temperature"])
        np.testing.assert_allclose(2 * paper, loss, rtol=1e-6)


@at_once_and_in_blocks
def test_does_not_depend_on_order_or_length():
    z = embeddings(8)
    loss, _ = loss_of(z)
    swapped = np.concatenate([z[8:], z[:8]])
    np.testing.assert_allclose(loss_of(swapped)[0], loss, rtol=1e-6)
    order = np.random.default_rng(1).permutation(8)
    permuted = np.concatenate([z[:8][order], z[8:][order]])
    np.testing.assert_allclose(loss_of(permuted)[0], loss, rtol=1e-6)
    lengths = np.random.default_rng(2).uniform(0.01, 100, (16, 1)).astype(np.float32)
    np.testing.assert_allclose(loss_of(z * lengths)[0], loss, rtol=1e-5)


@at_once_and_in_blocks
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_collapsed_embeddings_are_at_chance_and_look_it(temperature):
    z = np.eye(8, dtype=np.float32)[np.zeros(32, int)]
    loss, metrics = loss_of(z, temperature)
    np.testing.assert_allclose(loss, NTXent(temperature).chance(16), rtol=1e-6)
    np.testing.assert_allclose(NTXent(temperature).chance(16), math.log(31))
    doubled, _ = loss_of(z, temperature, reduction="reference")
    chance = NTXent(temperature, "reference").chance(16)
    np.testing.assert_allclose(doubled, chance, rtol=1e-6)
    np.testing.assert_allclose(chance, 2 * math.log(31))
    assert metrics["contrastive_top1"] == 0 and metrics["contrastive_top5"] == 0
    np.testing.assert_allclose(metrics["embedding_std"], 0, atol=1e-6)
    np.testing.assert_allclose(metrics["negative_cosine"], 1, rtol=1e-5)
    np.testing.assert_allclose(metrics["effective_rank"], 1, rtol=1e-5)


@at_once_and_in_blocks
def test_perfect_embeddings():
    z = np.tile(np.eye(16, dtype=np.float32), (2, 1))
    loss, metrics = loss_of(z, temperature=0.05)
    np.testing.assert_allclose(loss, math.log1p(30 * math.exp(-20)), atol=1e-6)
    assert metrics["contrastive_top1"] == 1
    np.testing.assert_allclose(metrics["positive_cosine"], 1, rtol=1e-6)
    np.testing.assert_allclose(metrics["negative_cosine"], 0, atol=1e-6)
    np.testing.assert_allclose(metrics["effective_rank"], 16, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["paper", "reference"])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("global_batch", [2, 64, 512])
def test_the_floor_is_the_loss_of_orthogonal_pairs(global_batch, temperature, reduction):
    z = np.tile(np.eye(global_batch, dtype=np.float32), (2, 1))
    loss, _ = loss_of(z, temperature, reduction=reduction)
    floor = NTXent(temperature, reduction).floor(global_batch)
    np.testing.assert_allclose(loss, floor, rtol=1e-4, atol=1e-6)


def test_embedding_std_of_a_uniform_sphere_is_one():
    z = np.random.default_rng(0).normal(size=(2048, 32)).astype(np.float32)
    np.testing.assert_allclose(loss_of(z)[1]["embedding_std"], 1, atol=0.01)


@at_once_and_in_blocks
def test_zero_embedding_has_a_finite_gradient():
    z = embeddings(4)
    z[0] = 0
    loss, gradient, metrics = value_and_gradient(z)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert all(np.isfinite(value) for value in metrics.values())
    assert loss_of(np.zeros_like(z))[1]["effective_rank"] == 0


@at_once_and_in_blocks
def test_bfloat16_embeddings_are_compared_in_float32():
    z = embeddings(256, 128)
    expected, _ = loss_of(z)
    loss, gradient, _ = value_and_gradient(tf.cast(z, tf.bfloat16))
    assert loss.dtype == tf.float32 and gradient.dtype == tf.bfloat16
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


@at_once_and_in_blocks
def test_compiles_with_xla():
    z = embeddings(8)
    loss, gradient, metrics = tf.function(value_and_gradient, jit_compile=True)(z)
    expected_loss, expected_gradient, expected_metrics = value_and_gradient(z)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], rtol=1e-4, atol=1e-6)


@at_once_and_in_blocks
@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("reduction", ["paper", "reference"])
def test_shares_sum_to_the_single_replica(replicas, reduction):
    """Loss, metrics and gradient of a global batch do not depend on how it is dealt out."""
    z = embeddings(8)
    expected_loss, expected_gradient, expected_metrics = value_and_gradient(z, reduction=reduction)
    strategy = simulated_replicas(replicas)

    def share(z):
        return value_and_gradient(z, reduction=reduction)

    run = tf.function(lambda z: strategy.run(share, (z,)))
    loss, gradient, metrics = run(distribute(strategy, z))
    metrics = {name: strategy.reduce("SUM", value, axis=None) for name, value in metrics.items()}
    gradient = whole(strategy.experimental_local_results(gradient), replicas)

    np.testing.assert_allclose(strategy.reduce("SUM", loss, axis=None), expected_loss, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], rtol=1e-5, err_msg=name)
    atol = 1e-5 * np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=atol)


@at_once_and_in_blocks
@pytest.mark.parametrize("devices", [["CPU:0", "CPU:1", "CPU:2"], ["CPU:2", "CPU:0", "CPU:1"]])
def test_own_column_follows_the_replica_not_the_device(devices):
    z = embeddings(6)
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    run = tf.function(lambda z: strategy.run(lambda z: loss_of(z)[0], (z,)))
    loss = strategy.reduce("SUM", run(distribute(strategy, z)), axis=None)
    np.testing.assert_allclose(loss, oracle(z, 0.1)["loss"], rtol=1e-5)


def small_model() -> keras.Model:
    """Convolution, SyncBN and the projection head."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="conv")(images)
    x = keras.layers.ReLU()(SyncBatchNormalization(name="bn")(x))
    h = keras.layers.GlobalAveragePooling2D()(x)
    z = projection_head(output_dim=4, input_dim=6)(h)["projection_2"]
    return keras.Model(images, z)


def weight_gradients(strategy: tf.distribute.Strategy, images: np.ndarray) -> dict:
    """Gradients of all weights, summed over the replicas, from the same start every time."""
    with strategy.scope():
        model = small_model()
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0.5, 0.5, variable.shape))

    def share(images):
        with tf.GradientTape() as tape:
            loss, _ = loss_of(model(images, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    gradients = tf.function(lambda x: strategy.run(share, (x,)))(distribute(strategy, images))
    return {
        variable.path: strategy.reduce("SUM", gradient, axis=None).numpy()
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }


@at_once_and_in_blocks
@pytest.mark.parametrize("replicas", [2, 4])
def test_gradient_of_weights_does_not_depend_on_replicas(replicas):
    images = np.random.default_rng(0).uniform(size=(16, 8, 8, 3)).astype(np.float32)
    expected = weight_gradients(simulated_replicas(1), images)
    actual = weight_gradients(simulated_replicas(replicas), images)
    assert len(actual) == 8
    for path, gradient in expected.items():
        atol = 1e-5 * max(np.abs(g).max() for g in expected.values())
        np.testing.assert_allclose(actual[path], gradient, rtol=1e-4, atol=atol, err_msg=path)


COLLECTIVE_SCRIPT = """
import sys
import tensorflow as tf
from simclr_tf.objectives.nt_xent import NTXent

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def share():
    r = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
    z = tf.sin(1.7 * tf.reshape(tf.range(24.0), [6, 4]) + r)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss, _ = NTXent()(z)
    return z, loss, tape.gradient(loss, z)

@tf.function
def step():
    return strategy.run(share)

types = {op.type for op in step.get_concrete_function().graph.get_operations()}
assert {"CollectiveGatherV2", "CollectiveReduceV2"} <= types, types
zs, losses, gradients = map(strategy.experimental_local_results, step())
z = tf.reshape(tf.stack([tf.reshape(z, [2, 3, 4]) for z in zs], axis=1), [12, 4])
with tf.GradientTape() as tape:
    tape.watch(z)
    loss, _ = NTXent()(z)
expected = tf.reshape(tape.gradient(loss, z), [2, 2, 3, 4])
tf.debugging.assert_near(tf.add_n(losses), loss, rtol=1e-5)
for r in range(2):
    tf.debugging.assert_near(gradients[r], tf.reshape(expected[:, r], [6, 4]), atol=1e-6)
print("equal")
"""


def test_collective_ops_give_the_same():
    """The ops of real training (CollectiveGather, CollectiveReduce), in a process of their own."""
    result = subprocess.run(
        [sys.executable, "-c", COLLECTIVE_SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=pathlib.Path(__file__).resolve().parents[2],
        check=False,
    )
    assert result.stdout.strip() == "equal", result.stderr


def test_gin_sets_the_temperature():
    z = embeddings(4)
    gin.parse_config("nt_xent.temperature = 0.5")
    np.testing.assert_allclose(nt_xent()(tf.constant(z))[0], oracle(z, 0.5)["loss"], rtol=1e-5)


def test_gin_sets_the_loss_when_it_is_built_and_not_later():
    gin.parse_config("nt_xent.temperature = 0.5\nnt_xent.reduction = 'reference'")
    loss = nt_xent()
    assert loss == NTXent(0.5, "reference") and nt_xent(0.2, block_size=3).block_size == 3
    gin.bind_parameter("nt_xent.temperature", 0.1)
    z = embeddings(4)
    expected = 2 * oracle(z, 0.5)["loss"]
    np.testing.assert_allclose(loss(tf.constant(z))[0], expected, rtol=1e-5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.temperature = 0.1


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((4, 2), {"temperature": 0.0}, "temperature must be positive. Received: temperature=0.0"),
        ((4, 2), {"temperature": -1.0}, "temperature must be positive"),
        ((4, 2), {"reduction": "mean"}, "Received: reduction='mean'. Valid: paper, reference"),
        ((4, 2), {"block_size": 0}, "at least 1. Received: block_size=0"),
        ((5, 2), {}, r"z must be \[2B, P\].*Received: shape=\(5, 2\)"),
        ((4, 2, 1), {}, r"z must be \[2B, P\]"),
        ((2, 2), {}, "at least 2 examples"),
    ],
)
def test_rejects(shape, kwargs, message):
    with pytest.raises(ValueError, match=message):
        NTXent(**kwargs)(tf.ones(shape))
