"""Collectives: values, shapes and gradients on 1, 2 and 4 logical CPUs."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.strategy import simulated_replicas

REPLICAS = [1, 2, 4]


def on_replicas(replicas: int, function, *parts: np.ndarray) -> list:
    """Runs function(parts[0][r], parts[1][r], ...) on every replica r; the results by replica."""
    strategy = simulated_replicas(replicas)
    arguments = [
        strategy.experimental_distribute_values_from_function(
            lambda context, part=part: tf.constant(part[context.replica_id_in_sync_group])
        )
        for part in parts
    ]
    results = tf.function(lambda *a: strategy.run(function, a))(*arguments)
    return [
        tf.nest.map_structure(
            lambda x, r=r: strategy.experimental_local_results(x)[r].numpy(), results
        )
        for r in range(replicas)
    ]


def data(replicas: int, shape: tuple[int, ...] = (3, 2)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(replicas, *shape)).astype(np.float32)


def test_identity_outside_a_strategy():
    x = tf.constant([1.0, 2.0])
    assert collectives.num_replicas() == 1
    assert collectives.replica_id() == 0
    for function in (
        collectives.all_reduce_sum,
        collectives.all_reduce_mean,
        collectives.all_gather,
    ):
        assert function(x) is x


def test_identity_in_cross_replica_context():
    x = tf.constant([1.0])
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        assert collectives.num_replicas() == 1
        assert collectives.all_reduce_sum(x) is x


@pytest.mark.parametrize("replicas", REPLICAS)
def test_ids_and_count(replicas):
    zeros = np.zeros([replicas], np.int32)
    ids = on_replicas(replicas, lambda x: x + collectives.replica_id(), zeros)
    assert ids == list(range(replicas))
    counts = on_replicas(replicas, lambda x: x + collectives.num_replicas(), zeros)
    assert counts == [replicas] * replicas


@pytest.mark.parametrize("replicas", REPLICAS)
def test_reduce_takes_structures(replicas):
    x, y = data(replicas), data(replicas, (2,))

    def function(x, y):
        return collectives.all_reduce_sum({"x": x, "y": y}), collectives.all_reduce_mean(x)

    for sums, mean in on_replicas(replicas, function, x, y):
        np.testing.assert_allclose(sums["x"], x.sum(0), rtol=1e-6)
        np.testing.assert_allclose(sums["y"], y.sum(0), rtol=1e-6)
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)


@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("axis", [0, 1])
def test_gather_is_ordered_and_static(replicas, axis):
    x, y = data(replicas, (3, 2)), data(replicas, (4, 1))

    def function(x, y):
        out = collectives.all_gather((x, y), axis=axis)
        assert all(o.shape.is_fully_defined() for o in out)
        return out

    for gathered_x, gathered_y in on_replicas(replicas, function, x, y):
        np.testing.assert_array_equal(gathered_x, np.concatenate(list(x), axis))
        np.testing.assert_array_equal(gathered_y, np.concatenate(list(y), axis))


@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("collective", ["sum", "mean", "gather"])
def test_gradient_is_that_of_the_sum_over_replicas(replicas, collective):
    """The objective sum_r f_r, f_r = <w_r, collective(x^2)>, in NumPy and by autodiff."""
    x = data(replicas)
    w = data(replicas, (replicas * 3 if collective == "gather" else 3, 2))
    functions = {
        "sum": collectives.all_reduce_sum,
        "mean": collectives.all_reduce_mean,
        "gather": collectives.all_gather,
    }

    def gradient(x, w):
        with tf.GradientTape() as tape:
            tape.watch(x)
            share = tf.reduce_sum(w * functions[collective](tf.square(x)))
        return tape.gradient(share, x)

    total = w.sum(0)
    for r, actual in enumerate(on_replicas(replicas, gradient, x, w)):
        outer = {
            "sum": total,
            "mean": total / replicas,
            "gather": total[r * 3 : (r + 1) * 3],
        }[collective]
        np.testing.assert_allclose(actual, 2 * x[r] * outer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("replicas", REPLICAS)
def test_stack(replicas):
    x = data(replicas)
    for result in on_replicas(replicas, collectives.stack, x):
        np.testing.assert_array_equal(result, x)
