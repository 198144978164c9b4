"""Momentum SGD with weight decay in the gradient, against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.optim.sgd import SGD


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_three_steps(momentum, nesterov):
    rng = np.random.default_rng(0)
    values = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    variables = [keras.Variable(value, name=name) for name, value in values.items()]
    optimizer = SGD(0.1, momentum, nesterov and momentum > 0, l2=0.5)
    optimizer.build(variables)
    weights = [np.float64(v.numpy()) for v in variables]
    velocities = [np.zeros_like(w) for w in weights]
    for _ in range(3):
        gradients = [rng.normal(size=w.shape).astype(np.float32) for w in weights]
        optimizer.apply([tf.constant(g) for g in gradients])
        for i, gradient in enumerate(gradients):
            step = 0.1 * (gradient + 0.5 * weights[i])
            velocities[i] = momentum * velocities[i] - step
            ahead = nesterov and momentum > 0
            weights[i] += momentum * velocities[i] - step if ahead else velocities[i]
    for variable, weight in zip(variables, weights, strict=True):
        np.testing.assert_allclose(variable, weight, rtol=1e-5)


def test_round_trip():
    optimizer = SGD(0.1, 0.8, True, 1e-4)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is SGD and copy.get_config() == optimizer.get_config()


@pytest.mark.parametrize("arguments", [(1.0, False, 0.0), (-0.1, False, 0.0), (0.9, False, -1.0)])
def test_rejects(arguments):
    with pytest.raises(InvalidArgument, match=r"weight_decay >= 0\. Received: momentum="):
        SGD(0.1, *arguments)
