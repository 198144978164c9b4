"""A loss against a bank, against the authors' formula in loops and float64, on R replicas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.memory_nce import METRICS, MemoryNCE
from tests.support.differences import slope

G, K, N, P = 8, 12, 30, 5
# The formula of the authors' code adds it to K / n.
EPSILON = 1.1920929e-07


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def numbers() -> tuple[np.ndarray, ...]:
    """Outputs of any length, some near their row; the bank; and the rows to compare."""
    rng = np.random.default_rng(0)
    bank = unit(rng.normal(size=(N, P)))
    own = rng.permutation(N)[:G]
    rows = rng.integers(0, N, (2, G, 1 + K))
    rows[:, :, 0] = own
    rows[0, 0, 3] = own[0]  # drawn as its own negative
    noise = np.linspace(0, 6, G)[:, None] * rng.normal(size=(2, G, P))
    outputs = 3 * bank[own] + noise
    return outputs.astype(np.float32), bank.astype(np.float32), rows.astype(np.int32)


def scores_of(output, bank, rows) -> list[float]:
    return [float(unit(output) @ bank[row].astype(np.float64)) for row in rows]


def nce(scores, temperature: float, z: float) -> float:
    p = [math.exp(s / temperature) / z for s in scores]
    own = p[0] / (p[0] + K / N + EPSILON)
    others = [(K / N) / (x + K / N + EPSILON) for x in p[1:]]
    return -math.log(own) - sum(math.log(x) for x in others)


def info_nce(scores, temperature: float) -> float:
    p = [math.exp(s / temperature) for s in scores]
    return -math.log(p[0] / sum(p))


def oracle(outputs, bank, rows, temperature: float, z: float | None, weight: float = 0.5):
    losses, own, ranks, negatives = ([[], []] for _ in range(4))
    for head in range(2):
        for output, compared in zip(outputs[head], rows[head], strict=True):
            s = scores_of(output, bank, compared)
            losses[head].append(nce(s, temperature, z) if z else info_nce(s, temperature))
            own[head].append(s[0])
            others = [x for x, row in zip(s, compared, strict=True) if row != compared[0]]
            ranks[head].append(sum(x >= s[0] for x in others))
            negatives[head].append(np.mean(s[1:]))
    parts = np.mean(losses, axis=1)
    g, f = unit(outputs)
    return {
        "loss": weight * parts[0] + (1 - weight) * parts[1],
        "patch_loss": parts[0],
        "image_loss": parts[1],
        "memory_cosine": np.mean(own),
        "contrastive_top1": np.mean(np.array(ranks) < 1),
        "contrastive_top5": np.mean(np.array(ranks) < 5),
        "positive_cosine": np.mean(np.sum(g * f, axis=1)),
        "negative_cosine": np.mean(negatives),
        "embedding_std": np.concatenate([g, f]).std(0).mean() * math.sqrt(P),
    }


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("form", "temperature", "weight"),
    [("nce", 0.07, 0.5), ("nce", 0.5, 0.25), ("cross_entropy", 0.1, 0.5)],
)
def test_equals_the_authors_formula_on_any_replicas(replicas, form, temperature, weight):
    outputs, bank, rows = numbers()
    z = 2.5 * N if form == "nce" else None
    strategy = simulated_replicas(replicas)
    objective = MemoryNCE(temperature, K, form, weight)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        g, f, of_g, of_f = (tf.gather(tf.split(x, replicas), replica) for x in (*outputs, *rows))
        everyone = tf.constant(bank)
        with tf.GradientTape() as tape:
            tape.watch([g, f, everyone])
            loss, found = objective(g, f, everyone, (of_g, of_f), tf.constant(2.5))
        return loss, found, tape.gradient(loss, [g, f, everyone])

    loss, metrics, (*by_outputs, by_bank) = tf.function(lambda: strategy.run(share))()
    assert by_bank is None
    expected = oracle(outputs, bank, rows, temperature, z, weight)
    assert 0 < expected["contrastive_top1"] < expected["contrastive_top5"] < 1
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in expected.items():
        found = strategy.reduce("SUM", {"loss": loss, **metrics}[name], axis=None)
        np.testing.assert_allclose(found, value, rtol=5e-5, atol=1e-6, err_msg=name)
    gradients = [np.concatenate(strategy.experimental_local_results(g)) for g in by_outputs]
    for index in [(0, 0, 0), (0, 5, 3), (1, 7, 1)]:
        by_element = slope(
            lambda x: oracle(x, bank, rows, temperature, z, weight)["loss"], outputs, index
        )
        np.testing.assert_allclose(np.array(gradients)[index], by_element, rtol=2e-3, atol=1e-6)


def test_the_partition_is_the_mean_over_all_that_is_compared():
    outputs, bank, rows = numbers()
    scores = [scores_of(z, bank, r) for z, r in zip(outputs[0], rows[0], strict=True)]
    found = MemoryNCE(0.3, K).partition(tf.constant(outputs[0]), bank, rows[0])
    np.testing.assert_allclose(found, np.mean(np.exp(np.array(scores) / 0.3)), rtol=1e-5)


def test_chance_of_the_papers_constants():
    """The best that the same answer for every row can do: ln(1 + K) + 1; and ln(1 + K)."""
    assert MemoryNCE().chance() == pytest.approx(11.37, abs=0.005)
    assert MemoryNCE(form="cross_entropy").chance() == pytest.approx(10.37, abs=0.005)
    answers = np.linspace(-8, 3, 20_001)
    p = 1 / (1 + np.exp(-answers))
    assert MemoryNCE(0.3, K).chance() == pytest.approx(np.min(-np.log(p) - K * np.log(1 - p)))


@pytest.mark.parametrize("form", ["nce", "cross_entropy"])
def test_floor_is_the_loss_of_outputs_on_their_row_at_right_angles_to_others(form):
    """Z / n of NCE is that of random directions of P dimensions, here by drawing many."""
    dim, objective = 7, MemoryNCE(0.3, 3, form)
    z = np.random.default_rng(0).normal(size=(200_000, dim))
    mean = np.mean(np.exp(unit(z)[:, 0] / 0.3))
    rows = tf.constant([[0, 1, 2, 3]])
    axes = tf.eye(dim)
    loss, _ = objective(axes[:1], axes[:1], axes, (rows, rows), tf.constant(mean, tf.float32))
    np.testing.assert_allclose(objective.floor(dim), loss, rtol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"negatives": 0}, "negatives >= 1.*negatives=0"),
        ({"patch_weight": 1.1}, "patch_weight <= 1.*patch_weight=1.1"),
    ],
)
def test_settings_are_in_range(settings, words):
    with pytest.raises(ValueError, match=words):
        MemoryNCE(**settings)
