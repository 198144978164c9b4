"""If this breaks, gradients are summed twice or not at all, or their numbers tell of others."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.methods.simclr import SimCLR
from simclr_tf.models.networks import variable_roles
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.training.gradients import GRADIENT_NORM, gradient_metrics, take_summed
from simclr_tf.training.representation import direction_sums, representation_numbers

SIZE = 16


@pytest.fixture
def batch() -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    return {
        "images": tf.constant(rng.random((8, SIZE, SIZE, 3), np.float32)),
        "labels": tf.constant([0, 1, 2, 1]),
        "index": tf.range(4),
    }


def float64_gradients(tiny, batch) -> dict[str, np.ndarray]:
    variables = tiny.networks.trainable_variables
    with tf.GradientTape() as tape:
        embedded = tiny.method.embed(batch, training=True)
        loss = NTXent(0.5)(embedded["projection"])[0]
    gradients = tape.gradient(loss, [v.value for v in variables])
    paths = [v.path for v in variables]
    return {p: g.numpy().astype(np.float64) for p, g in zip(paths, gradients, strict=True)}


def test_norm_and_trust_ratios_equal_numpy(build_tiny, batch):
    """The numbers are those of the gradient and the weights before the step."""
    tiny = build_tiny(rate=1.0)
    gradients = float64_gradients(tiny, batch)
    weights = {v.path: v.numpy().astype(np.float64) for v in tiny.networks.trainable_variables}
    roles = variable_roles(tiny.networks)
    found = dict(zip(tiny.names, tiny.step()(batch).numpy(), strict=True))

    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    np.testing.assert_allclose(found["gradient_norm"], norm, rtol=1e-4)
    ratios = []
    for path, weight in weights.items():
        if roles[path] == "kernel":
            slope = np.linalg.norm(gradients[path] + 1e-6 * weight)
            size = np.linalg.norm(weight)
            ratios.append(0.001 * size / slope if size > 0 and slope > 0 else 1.0)
    assert len(ratios) > 8
    for name, value in (("min", np.min), ("median", np.median), ("max", np.max)):
        np.testing.assert_allclose(found[f"trust_ratio_{name}"], value(ratios), rtol=1e-4)


def test_other_optimizers_have_no_trust_ratios(build_tiny, batch):
    tiny = build_tiny(rate=1.0)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(tiny.networks.trainable_variables)
    tiny = dataclasses.replace(tiny, optimizer=optimizer)
    assert gradient_metrics(optimizer) == (GRADIENT_NORM,)
    assert GRADIENT_NORM.name == tiny.names[-1] == "gradient_norm"
    assert tiny.step()(batch).shape == len(tiny.names)


def test_a_gradient_that_is_not_finite_shows(build_tiny, batch):
    """Where the loss still is: the square root at zero has no slope."""

    class Steep(NTXent):
        def __call__(self, z, images, small=None):
            share, numbers = super().__call__(z, images, small)
            return share + tf.sqrt(tf.reduce_sum(0.0 * z)), numbers

    tiny = build_tiny(rate=1.0, loss=Steep(0.5))
    found = dict(zip(tiny.names, tiny.step()(batch).numpy(), strict=True))
    assert np.isfinite(found["loss"]) and not np.isfinite(found["gradient_norm"])


class Doubled(SimCLR):
    def transform_gradients(self, step, gradients):
        return [2.0 * gradient for gradient in gradients]


def test_a_method_transforms_its_gradients(build_tiny, batch):
    tiny = build_tiny(rate=1.0)
    method = tiny.method
    doubled = Doubled(method.networks, method.views, method.objective)
    start = [(v, v.numpy()) for v in tiny.networks.variables]
    moved = []
    for trained in (method, doubled):
        for variable, value in start:
            variable.assign(value)
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.build(tiny.networks.trainable_variables)
        dataclasses.replace(tiny, method=trained, optimizer=optimizer).step()(batch)
        moved.append({v.path: v.numpy() - value for v, value in start if v.trainable})
    for path, change in moved[0].items():
        scale = np.abs(change).max()
        np.testing.assert_allclose(moved[1][path], 2.0 * change, rtol=0, atol=1e-2 * scale + 1e-7)


def test_a_keras_that_sums_elsewhere_is_refused():
    with pytest.raises(RuntimeError, match=f"Received: Keras {keras.__version__}"):
        take_summed(object())


def spread(h: np.ndarray) -> float:
    sums = direction_sums(tf.constant(h, tf.float32))
    return float(representation_numbers(sums, len(h))["representation_spread"])


def test_representation_spread_equals_numpy():
    h = np.random.default_rng(0).gamma(2.0, size=(16, 8))
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    expected = np.sqrt(((unit - unit.mean(0)) ** 2).sum(1).mean())
    assert spread(h) == pytest.approx(expected, rel=1e-5)


def test_dead_representations_have_no_spread():
    assert spread(np.zeros((16, 512))) == 0
    assert spread(np.tile(np.random.default_rng(0).random(512), (4096, 1))) < 1e-3
