"""BYOL's loss against its equation in float64, on R replicas."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.byol import CHANCE, FLOOR, METRICS, byol_loss
from tests.support.differences import slope
from tests.support.replicas import joined, parts

BATCH, DIM = 8, 5


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def oracle(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Equation 2 and its like with views exchanged, averaged over images."""
    total = 0.0
    for i in range(BATCH):
        for online, target in ((i, BATCH + i), (BATCH + i, i)):
            p = predictions[online] / np.linalg.norm(predictions[online])
            z = targets[target] / np.linalg.norm(targets[target])
            total += np.sum((p - z) ** 2)
    return total / BATCH


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_equals_its_equation_on_any_replicas(replicas):
    rng = np.random.default_rng(0)
    p, t, z = rng.normal(size=(3, 2 * BATCH, DIM)).astype(np.float32)
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = [tf.gather(tf.constant(parts(x, replicas, 2)), replica) for x in (p, t, z)]
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss, metrics = byol_loss(*own)
        return loss, metrics, tape.gradient(loss, own)

    loss, metrics, (gradient, *others) = tf.function(lambda: strategy.run(share))()
    assert others == [None, None]  # the target network and the metrics have none
    z = unit(np.float64(z))
    eigenvalues = np.linalg.eigvalsh(z.T @ z)
    expected = {
        "loss": oracle(np.float64(p), np.float64(t)),
        "embedding_std": z.std(0).mean() * np.sqrt(DIM),
        "effective_rank": eigenvalues.sum() ** 2 / np.sum(eigenvalues**2),
    }
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, err_msg=name)
    gradients = joined(np.stack(strategy.experimental_local_results(gradient)), views=2)
    for index in np.ndindex(p.shape):
        by_element = slope(lambda p: oracle(p, np.float64(t)), p, index)
        np.testing.assert_allclose(gradients[index], by_element, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [([1.0, 0.0], FLOOR), ([0.0, 3.0], CHANCE), ([-2.0, 0.0], 2 * CHANCE)],
)
def test_the_loss_of_some_angles(predicted, expected):
    """Equal, at right angles, opposite: 0, 2 and 4 in each of two directions."""
    targets = tf.constant([[5.0, 0.0]] * 4)
    loss, _ = byol_loss(tf.constant([predicted] * 4), targets, targets)
    np.testing.assert_allclose(loss, expected, atol=1e-6)
