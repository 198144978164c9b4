"""InfoNCE against a queue, against its equation in loops and float64, on R replicas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.info_nce import InfoNCE
from simclr_tf.objectives.view_metrics import METRICS
from tests.support.differences import slope

G, K, P = 8, 12, 5


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embeddings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries of any length, their keys, and a queue; some queries are near their keys."""
    rng = np.random.default_rng(0)
    keys, queue = unit(rng.normal(size=(G, P))), unit(rng.normal(size=(K, P)))
    queries = 3 * keys + np.linspace(0, 6, G)[:, None] * rng.normal(size=(G, P))
    return queries.astype(np.float32), keys.astype(np.float32), queue.astype(np.float32)


def oracle(queries, keys, queue, temperature: float) -> dict[str, float]:
    losses, ranks, positives, negatives = [], [], [], []
    for q, k in zip(unit(queries), keys.astype(np.float64), strict=True):
        logits = [q @ k / temperature] + [q @ n / temperature for n in queue.astype(np.float64)]
        total = sum(math.exp(logit) for logit in logits)
        losses.append(-math.log(math.exp(logits[0]) / total))
        ranks.append(sum(logit >= logits[0] for logit in logits[1:]))
        positives.append(logits[0] * temperature)
        negatives.append(np.mean(logits[1:]) * temperature)
    both = np.concatenate([unit(queries), unit(keys)])
    moments = np.linalg.eigvalsh(both.T @ both)
    return {
        "loss": np.mean(losses),
        "contrastive_top1": np.mean(np.array(ranks) < 1),
        "contrastive_top5": np.mean(np.array(ranks) < 5),
        "positive_cosine": np.mean(positives),
        "negative_cosine": np.mean(negatives),
        "embedding_std": both.std(0).mean() * math.sqrt(P),
        "effective_rank": moments.sum() ** 2 / (moments**2).sum(),
    }


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_its_equation_on_any_replicas(replicas, temperature):
    queries, keys, queue = embeddings()
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        q, k = (tf.gather(tf.split(x, replicas), replica) for x in (queries, keys))
        everyone = tf.constant(queue)
        with tf.GradientTape() as tape:
            tape.watch([q, k, everyone])
            loss, metrics = InfoNCE(temperature)(q, k, everyone)
        return loss, metrics, tape.gradient(loss, [q, k, everyone])

    loss, metrics, (by_query, *others) = tf.function(lambda: strategy.run(share))()
    assert others == [None, None]
    expected = oracle(queries, keys, queue, temperature)
    assert 0 < expected["contrastive_top1"] < expected["contrastive_top5"] < 1
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    gradient = np.concatenate(strategy.experimental_local_results(by_query))
    for index in [(0, 0), (5, 3), (7, 1)]:
        by_element = slope(lambda q: oracle(q, keys, queue, temperature)["loss"], queries, index)
        np.testing.assert_allclose(gradient[index], by_element, rtol=1e-3, atol=1e-6)


def test_chance_and_floor_of_the_papers_queue():
    """ln(1 + 65,536) = 11.09, for equal embeddings; and equal positives at right angles to all."""
    loss = InfoNCE(0.07)
    assert loss.chance(65_536) == pytest.approx(11.09, abs=0.005)
    same, _ = loss(
        tf.ones([2, P]), unit(np.ones([2, P])).astype(np.float32), tf.ones([K, P]) / P**0.5
    )
    np.testing.assert_allclose(same, loss.chance(K), rtol=1e-5)
    axes = np.eye(P, dtype=np.float32)
    best, _ = loss(axes[:2], axes[:2], axes[2:])
    np.testing.assert_allclose(best, loss.floor(P - 2), rtol=1e-3)


def test_a_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        InfoNCE(0.0)
