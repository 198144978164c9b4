"""DINO's loss against its equation in float64, on R replicas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import InvalidArgument
from simclr_tf.objectives.dino import METRICS, DINOLoss
from tests.support.differences import slope
from tests.support.replicas import joined, parts

BATCH, COUNT, VIEWS = 4, 5, 4
STUDENT, TEACHER = 0.5, 0.25


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def oracle(student: np.ndarray, teacher: np.ndarray, centre: np.ndarray) -> dict[str, float]:
    """Equation 3 in float64, pair after pair."""
    views = len(student) // BATCH
    terms, divergences, entropies, everyone = [], [], [], []
    for i in range(BATCH):
        for a in range(2):
            p = softmax((teacher[a * BATCH + i] - centre) / TEACHER)
            entropies.append(-np.sum(p * np.log(p)))
            everyone.append(p)
            for b in range(views):
                if a != b:
                    q = softmax(student[b * BATCH + i] / STUDENT)
                    terms.append(-np.sum(p * np.log(q)))
                    divergences.append(np.sum(p * np.log(p / q)))
    assert len(terms) == BATCH * 2 * (views - 1)
    mean = np.mean(everyone, axis=0)
    return {
        "loss": np.mean(terms),
        "teacher_entropy": np.mean(entropies),
        "teacher_divergence": np.mean(divergences),
        "prototypes_used": np.exp(-np.sum(mean * np.log(mean))),
    }


@pytest.mark.parametrize("views", [2, VIEWS])
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_equals_its_equation_on_any_replicas(replicas, views):
    rng = np.random.default_rng(0)
    s = rng.normal(size=(views * BATCH, COUNT)).astype(np.float32)
    t = rng.normal(size=(2 * BATCH, COUNT)).astype(np.float32)
    c = rng.normal(size=COUNT).astype(np.float32)
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = [
            tf.gather(tf.constant(parts(x, replicas, n)), replica) for x, n in ((s, views), (t, 2))
        ]
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss, metrics = DINOLoss(STUDENT)(*own, tf.constant(c), tf.constant(TEACHER))
        return loss, metrics, tape.gradient(loss, own)

    loss, metrics, (gradient, other) = tf.function(lambda: strategy.run(share))()
    assert other is None  # the teacher has none
    s, t, c = np.float64(s), np.float64(t), np.float64(c)
    expected = oracle(s, t, c)
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, err_msg=name)
    gradients = joined(np.stack(strategy.experimental_local_results(gradient)), views)
    for index in np.ndindex(s.shape):
        by_element = slope(lambda s: oracle(s, t, c)["loss"], s, index)
        np.testing.assert_allclose(gradients[index], by_element, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "chance"), [(65536, 11.09), (60000, 11.00), (4096, 8.32), (2048, 7.62)]
)
def test_chance(count, chance):
    assert DINOLoss().chance(count) == pytest.approx(chance, abs=5e-3)


@pytest.mark.parametrize(
    ("logit", "entropy", "used"), [(0.0, math.log(COUNT), COUNT), (100.0, 0.0, 1.0)]
)
def test_both_collapses(logit, entropy, used):
    """The student agrees: the divergence says nothing, the entropy is that of all or of one."""
    logits = tf.constant([[logit] + [0.0] * (COUNT - 1)] * 2 * BATCH)
    loss, metrics = DINOLoss(STUDENT)(logits, logits, tf.zeros(COUNT), TEACHER)
    np.testing.assert_allclose(loss, entropy, atol=1e-5)
    np.testing.assert_allclose(metrics["teacher_entropy"], entropy, atol=1e-5)
    np.testing.assert_allclose(metrics["teacher_divergence"], 0.0, atol=1e-5)
    np.testing.assert_allclose(metrics["prototypes_used"], used, rtol=1e-5)


def test_a_temperature_out_of_range_is_refused():
    with pytest.raises(InvalidArgument, match="positive"):
        DINOLoss(0.0)
