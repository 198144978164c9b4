"""LARS against float64 NumPy, against the reference's numbers, and on replicas."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.optim.lars import LARS
from simclr_tf.optim.schedules import WarmupCosine

INITIAL = {
    "kernel": np.sin(np.arange(12.0)).reshape(4, 3),
    "bias": np.cos(np.arange(4.0)),
    "gamma": np.ones(4),
    "zero_kernel": np.zeros((2, 2)),
    "no_gradient": np.arange(1.0, 4.0),
}
EXCLUDED = ("bias", "gamma")


def gradients_at(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    gradients = {name: rng.normal(size=value.shape) for name, value in INITIAL.items()}
    gradients["no_gradient"][:] = 0
    return gradients


def oracle(steps, learning_rate, momentum, weight_decay, eta, nesterov=False):
    """The update rule, variable by variable, in float64."""
    weights = {name: value.astype(np.float64) for name, value in INITIAL.items()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    for step in range(steps):
        for name, gradient in gradients_at(step).items():
            ratio = 1.0
            if name not in EXCLUDED:
                gradient = gradient + weight_decay * weights[name]
                norms = np.linalg.norm(weights[name]), np.linalg.norm(gradient)
                if norms[0] > 0 and norms[1] > 0:
                    ratio = eta * norms[0] / norms[1]
            scaled = learning_rate * ratio * gradient
            velocity[name] = momentum * velocity[name] + scaled
            update = momentum * velocity[name] + scaled if nesterov else velocity[name]
            weights[name] = weights[name] - update
    return weights


def variables() -> dict[str, keras.Variable]:
    return {
        name: keras.Variable(value, dtype="float32", name=name) for name, value in INITIAL.items()
    }


def built(optimizer: LARS, weights: dict[str, keras.Variable]) -> LARS:
    optimizer.exclude([weights[name] for name in EXCLUDED])
    optimizer.build(list(weights.values()))
    return optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_numpy(weight_decay, nesterov):
    rule = {"momentum": 0.9, "weight_decay": weight_decay, "eta": 0.01, "nesterov": nesterov}
    weights = variables()
    optimizer = built(LARS(0.5, **rule), weights)
    for step in range(6):
        gradients = gradients_at(step)
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients.values()])
    for name, expected in oracle(6, 0.5, **rule).items():
        np.testing.assert_allclose(weights[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_equals_the_reference(goldens):
    golden = json.loads((goldens / "loss_lars_schedule.json").read_text())["lars"]
    steps = golden["after_each_step"]
    weights = {}
    for name, value in steps[0].items():
        initial = (
            np.zeros(len(value)) if name.startswith("zero") else np.sin(1 + np.arange(len(value)))
        )
        weights[name] = keras.Variable(initial, dtype="float32", name=name.replace("/", "_"))
    optimizer = LARS(
        golden["learning_rate"], golden["momentum"], golden["weight_decay"], golden["eeta"]
    )
    excluded = ("dense/bias", "batch_normalization/gamma", "head_supervised/kernel")
    optimizer.exclude([weights[name] for name in excluded])
    optimizer.build(list(weights.values()))
    for step, expected in enumerate(steps):
        gradients = [np.cos(0.5 * step + np.arange(len(w))) for w in expected.values()]
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients])
        for name, value in expected.items():
            np.testing.assert_allclose(weights[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_first_step_by_hand():
    """||w|| = 5, ||g|| = 10: ratio 0.001 * 5 / 10, step 2 * 0.0005 * g; the bias steps by 2 g."""
    kernel = keras.Variable([3.0, 4.0], name="kernel")
    bias = keras.Variable([0.0], name="bias")
    optimizer = LARS(2.0)
    optimizer.exclude([bias])
    optimizer.build([kernel, bias])
    optimizer.apply([tf.constant([6.0, 8.0]), tf.constant([1.0])])
    np.testing.assert_allclose(kernel, [2.994, 3.992], rtol=1e-6)
    np.testing.assert_allclose(bias, [-2.0])


def test_scale_of_gradient_does_not_matter():
    results = []
    for scale in (1.0, 1000.0):
        kernel = keras.Variable([3.0, 4.0], name="kernel")
        optimizer = LARS(1.0)
        optimizer.build([kernel])
        for _ in range(3):
            optimizer.apply([scale * tf.constant([1.0, -2.0])])
        results.append(kernel.numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_follows_a_schedule_in_a_traced_function():
    kernel = keras.Variable([3.0, 4.0], name="kernel")
    optimizer = LARS(WarmupCosine(1.0, 2, 10), momentum=0.0, eta=1.0)
    optimizer.build([kernel])

    @tf.function
    def step():
        optimizer.apply([kernel.value])

    lengths = [np.linalg.norm(kernel)]
    for _ in range(3):
        step()
        lengths.append(np.linalg.norm(kernel))
    # Gradient = weight, eta = 1: each step takes away the rate's share of the weight.
    np.testing.assert_allclose(lengths, [5.0, 5.0, 2.5, 0.0], atol=1e-6)


def test_replicas_equal_one_device_with_the_summed_gradient():
    """Keras sums gradients over replicas; all copies of weights and velocities stay equal."""
    strategy = simulated_replicas(2)
    with strategy.scope():
        weights = variables()
        optimizer = built(LARS(0.5, weight_decay=1e-2, eta=0.01), weights)

    def update(gradients):
        # Replica 0 brings 0.25 of the gradient and replica 1 the rest.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = 0.25 + 0.5 * tf.cast(replica, tf.float32)
        optimizer.apply([share * g for g in gradients])

    step = tf.function(lambda *gradients: strategy.run(update, (gradients,)))
    for i in range(4):
        step(*[tf.constant(g, tf.float32) for g in gradients_at(i).values()])
    expected = oracle(4, 0.5, momentum=0.9, weight_decay=1e-2, eta=0.01)
    for name, weight in weights.items():
        copies = strategy.experimental_local_results(weight.value)
        np.testing.assert_array_equal(*copies)
        np.testing.assert_allclose(copies[0], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for velocity in optimizer.velocities:
        np.testing.assert_array_equal(*strategy.experimental_local_results(velocity.value))


def test_config_round_trip():
    optimizer = LARS(WarmupCosine(1.0, 2, 10), 0.8, 1e-4, 0.02, True, ["bias"])
    assert optimizer.weight_decay is None, "Keras would decay a second time"
    config = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(config)
    assert isinstance(copy, LARS)
    assert copy.get_config() == optimizer.get_config()
    assert copy.excluded_paths == ["bias"]


def test_slots():
    weights = variables()
    optimizer = built(LARS(0.1), weights)
    assert optimizer.excluded_paths == ["bias", "gamma"]
    assert [v.name for v in optimizer.velocities] == [f"{name}_velocity" for name in weights]
    assert len(optimizer.variables) == 2 + len(weights)  # iteration and learning rate


def test_rejects_everything_excluded():
    bias = keras.Variable([0.0], name="bias")
    optimizer = LARS(0.1)
    optimizer.exclude([bias])
    with pytest.raises(ValueError, match="1 variables, all of them excluded"):
        optimizer.build([bias])


def test_rejects_late_exclusion():
    weights = variables()
    optimizer = built(LARS(0.1), weights)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude([weights["kernel"]])


def test_rejects_two_variables_of_one_path():
    with pytest.raises(ValueError, match=r"Received twice: \['w'\]"):
        LARS(0.1).build([keras.Variable([0.0], name="w"), keras.Variable([0.0], name="w")])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"momentum": 1.0}, "Received: momentum=1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"eta": 0.0}, "eta=0.0"),
        ({"gradient_accumulation_steps": 4}, "Received: gradient_accumulation_steps=4"),
    ],
)
def test_rejects(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LARS(0.1, **kwargs)
