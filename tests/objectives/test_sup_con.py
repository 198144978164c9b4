"""SupCon against its equation in loops and float64, on R replicas, and against NT-Xent."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.objectives.sup_con import METRICS, SupCon
from tests.support.differences import slope
from tests.support.replicas import joined, parts

LABELS = np.array([0, 1, 0, 2, 1, -1, -1, 0], np.int32)
IMAGES = np.array([7, 3, 9, 2, 5, 11, 70_000, 4], np.int32)


def embeddings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(16, 5)).astype(np.float32)


def oracle(z: np.ndarray, temperature: float) -> dict[str, float]:
    """Equation 2: the mean over positives outside the logarithm; no label, a class of its own."""
    numbers = zip(LABELS, IMAGES, strict=True)
    classes = [f"label {label}" if label >= 0 else f"image {i}" for label, i in numbers] * 2
    unit = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    cosines = unit @ unit.T
    losses, nearest, positives, negatives = [], [], [], []
    for i in range(16):
        others = [k for k in range(16) if k != i]
        same = [k for k in others if classes[k] == classes[i]]
        total = sum(math.exp(cosines[i, k] / temperature) for k in others)
        losses.append(
            -np.mean([math.log(math.exp(cosines[i, p] / temperature) / total) for p in same])
        )
        nearest.append(max(others, key=lambda k: cosines[i, k]) in same)
        positives.append(np.mean(cosines[i, same]))
        negatives.append(np.mean([cosines[i, k] for k in others if k not in same]))
    return {
        "loss": np.mean(losses),
        "supcon_top1": np.mean(nearest),
        "positive_cosine": np.mean(positives),
        "negative_cosine": np.mean(negatives),
        "embedding_std": unit.std(0).mean() * math.sqrt(5),
    }


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_its_equation_on_any_replicas(replicas, temperature):
    z = embeddings()
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own, labels, images = (
            tf.gather(tf.constant(parts(array, replicas, views)), replica)
            for array, views in ((z, 2), (LABELS, 1), (IMAGES, 1))
        )
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss, metrics = SupCon(temperature)(own, labels, images)
        return loss, metrics, tape.gradient(loss, own)

    loss, metrics, gradient = tf.function(lambda: strategy.run(share))()
    expected = oracle(z, temperature)
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    gradients = joined(np.stack(strategy.experimental_local_results(gradient)), views=2)
    for index in [(0, 0), (5, 3), (12, 1)]:
        by_element = slope(lambda z: oracle(z, temperature)["loss"], z, index)
        np.testing.assert_allclose(gradients[index], by_element, atol=1e-5)


def test_without_labels_it_is_nt_xent():
    z, images = tf.constant(embeddings()), tf.range(8)
    loss, _ = SupCon(0.2)(z, tf.fill([8], -1), images)
    np.testing.assert_allclose(loss, NTXent(0.2)(z, images)[0], rtol=1e-6)


def test_a_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        SupCon(0.0)
