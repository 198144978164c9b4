"""VICReg's loss against its equations with covariance matrices in float64, on R replicas."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.vicreg import METRICS, VICRegLoss
from tests.support.differences import slope
from tests.support.replicas import joined, parts

BATCH, DIM = 8, 5


def projections(scale: float = 1.0) -> np.ndarray:
    """Correlated, of which some dimensions vary by less than 1 and some by more."""
    rng = np.random.default_rng(0)
    image = np.tile(rng.normal(size=(BATCH, DIM)), (2, 1))
    z = (image + 0.3 * rng.normal(size=(2 * BATCH, DIM))) @ rng.normal(size=(DIM, DIM))
    return (scale * z * [0.1, 0.3, 0.5, 1.0, 2.0] + 3.0).astype(np.float32)


def oracle(z: np.ndarray, loss: VICRegLoss) -> dict[str, float]:
    """The paper's section 4.1, and the authors' code for the half of the variance term."""
    views = np.split(z.astype(np.float64), 2)
    variance, covariance, deviations, ranks = 0.0, 0.0, [], []
    for view in views:
        matrix = np.cov(view, rowvar=False)  # divides by n - 1
        diagonal = np.diag(matrix)
        variance += np.mean(np.maximum(0, 1 - np.sqrt(diagonal + 1e-4))) / 2
        covariance += (np.sum(matrix**2) - np.sum(diagonal**2)) / DIM
        deviations.append(np.mean(np.std(view, axis=0, ddof=1)))
        eigenvalues = np.linalg.eigvalsh(matrix)
        ranks.append(eigenvalues.sum() ** 2 / np.sum(eigenvalues**2))
    invariance = np.mean((views[0] - views[1]) ** 2)
    return {
        "loss": loss.invariance * invariance
        + loss.variance * variance
        + loss.covariance * covariance,
        "invariance": invariance,
        "variance": variance,
        "covariance": covariance,
        "projection_std": np.mean(deviations),
        "effective_rank": np.mean(ranks),
    }


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("loss", [VICRegLoss(), VICRegLoss(2.0, 3.0, 5.0)])
def test_equals_its_equations_on_any_replicas(replicas, loss):
    z = projections()
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.gather(tf.constant(parts(z, replicas, 2)), replica)
        with tf.GradientTape() as tape:
            tape.watch(own)
            total, metrics = loss(own)
        return total, metrics, tape.gradient(total, own)

    total, metrics, gradient = tf.function(lambda: strategy.run(share))()
    expected = oracle(z, loss)
    assert 0 < expected["variance"] < 0.5 and expected["covariance"] > 0.1
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": total, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, err_msg=name)
    gradients = joined(np.stack(strategy.experimental_local_results(gradient)), views=2)
    for index in np.ndindex(z.shape):
        by_element = slope(lambda z: oracle(z, loss)["loss"], z, index)
        np.testing.assert_allclose(gradients[index], by_element, rtol=1e-3, atol=1e-4)


def test_the_collapsed_loss_is_that_of_equal_projections():
    loss, z = VICRegLoss(), tf.fill([2 * BATCH, DIM], 0.7)
    share, metrics = loss(z)
    assert loss.chance() == pytest.approx(24.75)
    np.testing.assert_allclose(share, loss.chance(), rtol=1e-5)
    assert float(metrics["projection_std"]) < 1e-6


@pytest.mark.parametrize(("rows", "floor"), [(9, 0.0), (5, 0.5)])
def test_the_floor_is_reached(rows, floor):
    """By orthonormal columns, and in fewer examples than dimensions by orthonormal rows."""
    loss = VICRegLoss()
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(rows, DIM))
    left, _, right = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    rank = min(rows - 1, DIM)
    z = left[:, :rank] @ right[:rank]
    if rows <= DIM:
        z = left[:, :rank] @ np.stack(_waves(DIM))[:rank] / np.sqrt(DIM / 2)
    z *= np.sqrt((rows - 1) * DIM / rank)
    np.testing.assert_allclose(z.var(0, ddof=1), 1.0, rtol=1e-6)
    share, _ = loss(tf.constant(np.tile(z, (2, 1)), tf.float32))
    assert loss.floor(rows, DIM) == pytest.approx(floor)
    np.testing.assert_allclose(share, floor, atol=1e-4)


def _waves(count: int) -> list[np.ndarray]:
    """Cosines and sines of whole periods: orthogonal, and all columns have the same length."""
    angles = 2 * np.pi * np.arange(count) / count
    return [wave(k * angles) for k in range(1, count // 2 + 1) for wave in (np.cos, np.sin)]


@pytest.mark.parametrize("coefficients", [(-1.0, 1.0, 1.0), (1.0, 1.0, -1.0)])
def test_negative_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match=r"must be 0 or positive\. Received: invariance="):
        VICRegLoss(*coefficients)
