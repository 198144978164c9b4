"""If this breaks, runs are chosen by numbers that are not the measures' of the papers."""

import math

import numpy as np
import pytest

from simclr_tf.evaluation.label_free import Spectrum, alignment, uniformity

BLOCKS = [7, 64, 10**4]


def features(count=90, dimensions=12, seed=0):
    """Neither centred nor white."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions))
    return (values + rng.normal(size=dimensions)).astype(np.float32)


def with_eigenvalues(eigenvalues, count=500, seed=0):
    """Centred features whose covariance has exactly these eigenvalues."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, len(eigenvalues)))
    orthonormal, _ = np.linalg.qr(values - values.mean(0))
    rotation, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return math.sqrt(count) * orthonormal * np.sqrt(eigenvalues) @ rotation


def naive_rankme(values):
    """Equation 1 in float64, by a singular value decomposition."""
    sigma = np.linalg.svd(values.astype(np.float64), compute_uv=False)
    entropy = 0.0
    for value in sigma:
        p = value / sigma.sum() + 1e-7
        entropy -= p * math.log(p)
    return math.exp(entropy)


@pytest.mark.parametrize("block_rows", BLOCKS)
@pytest.mark.parametrize("count", [90, 5])
def test_rankme_is_the_formula_whatever_the_blocks(block_rows, count):
    values = features(count)
    found = Spectrum.of(values, block_rows)
    assert len(found.singular_values) == min(count, 12)
    assert found.rankme() == pytest.approx(naive_rankme(values), rel=1e-5)


def test_rankme_of_known_features():
    isotropic = np.linalg.qr(features(100, 16))[0]
    assert Spectrum.of(isotropic).rankme() == pytest.approx(16, rel=1e-4)
    assert Spectrum.of(3 * isotropic[:, :4]).rankme() == pytest.approx(4, rel=1e-4)
    rank_1 = np.outer(np.arange(1, 101), np.arange(16))
    assert Spectrum.of(rank_1).rankme() == pytest.approx(1, rel=1e-4)
    assert Spectrum.of(np.zeros((9, 16))).rankme() == pytest.approx(1, rel=1e-4)
    # Not centred: a mean that is far from zero is a direction of its own.
    assert Spectrum.of(isotropic + 100).rankme() < 1.5


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
@pytest.mark.parametrize("dimensions", [128, 20])
def test_alpha_of_a_power_law(alpha, dimensions):
    values = with_eigenvalues(np.arange(1, dimensions + 1) ** -alpha)
    found = Spectrum.of(values + 5)
    assert found.alpha_req() == pytest.approx(alpha, rel=1e-6)
    assert found.fitted_ranks() == (4, min(100, dimensions))


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_alpha_is_a_weighted_line_through_ranks_4_to_100(block_rows):
    values = features(300, 130)
    eigenvalues = np.linalg.eigvalsh(np.cov(values.T.astype(np.float64)))[::-1]
    ranks = np.arange(4, 101)
    # polyfit weights residuals, not their squares.
    slope, _ = np.polyfit(np.log(ranks), np.log(eigenvalues[3:100]), 1, w=ranks**-0.5)
    assert Spectrum.of(values, block_rows).alpha_req() == pytest.approx(-slope, rel=1e-6)


def test_eigenvalues_of_rounding_errors_are_not_fitted():
    assert Spectrum.of(with_eigenvalues([4, 3, 2, 1, 0, 0, 0])).alpha_req() is None
    few_images = features(9, 40)
    assert Spectrum.of(few_images).fitted_ranks() == (4, 8)  # the mean takes one of nine
    assert Spectrum.of(np.zeros((9, 16))).alpha_req() is None


def naive_uniformity(values):
    total, pairs = 0.0, 0
    for i, first in enumerate(values.astype(np.float64)):
        for second in values[:i].astype(np.float64):
            u, v = first / np.linalg.norm(first), second / np.linalg.norm(second)
            total += math.exp(-2 * np.sum((u - v) ** 2))
            pairs += 1
    return math.log(total / pairs)


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_uniformity_is_the_formula_whatever_the_blocks(block_rows):
    values = features(70)
    assert uniformity(values, block_rows) == pytest.approx(naive_uniformity(values), rel=1e-9)


def test_uniformity_of_known_points():
    assert uniformity(np.array([[2.0, 0], [-1, 0]])) == pytest.approx(-8)  # distance 2
    assert uniformity(np.array([[2.0, 0], [0, 5]])) == pytest.approx(-4)  # a right angle
    assert uniformity(np.ones((5, 3))) == pytest.approx(0)
    assert uniformity(np.zeros((5, 3))) == pytest.approx(0)
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    expected = math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6)
    assert uniformity(square) == pytest.approx(expected)


def test_alignment():
    first, second = features(50, seed=1), features(50, seed=2)
    cosines = [
        np.dot(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
        for u, v in zip(first.astype(np.float64), second.astype(np.float64), strict=True)
    ]
    expected = 2 - 2 * np.mean(cosines)
    assert alignment(first, second) == pytest.approx(expected, rel=1e-9)
    assert alignment(first, 3 * first) == pytest.approx(0)
    assert alignment(first, -first) == pytest.approx(4)
