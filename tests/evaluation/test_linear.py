"""If this breaks, published accuracies are wrong: test data seen, classes mixed up."""

import numpy as np
import pytest

from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.linear import fit_linear

RNG = np.random.default_rng(7)


def of(values, labels):
    return Features(values, labels, np.arange(len(labels)))


def blobs(count, spread, seed, classes=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(9).normal(0, 1, (classes, 8))
    return of((centres[labels] + rng.normal(0, spread, (count, 8))).astype(np.float32), labels)


@pytest.mark.parametrize("penalties", [(), (0.0,), (-1.0, 0.1)])
def test_penalties_that_are_none_are_refused(penalties):
    with pytest.raises(ValueError, match="Penalties must be positive, and at least one"):
        fit_linear(blobs(30, 1.0, 1), blobs(9, 1.0, 2), penalties)


def test_separable_features_are_separated():
    result, per_class = fit_linear(blobs(600, 0.05, 0), blobs(101, 0.05, 1))
    assert result.top1 == result.top5 == 1.0
    assert (result.num_train, result.num_test) == (600, 101)
    assert result.mean_per_class == 1.0 and per_class.images.sum() == 101


def test_close_to_the_best_possible_classifier():
    """For equal spheres the nearest centre is optimal, and a linear classifier can be it."""
    test = blobs(3000, 1.0, 1)
    centres = np.random.default_rng(9).normal(0, 1, (6, 8))
    nearest = ((test.values[:, None] - centres) ** 2).sum(-1).argmin(1)
    optimal = (nearest == test.labels).mean()
    assert abs(fit_linear(blobs(3000, 1.0, 0), test)[0].top1 - optimal) < 0.03


def test_random_labels_stay_at_chance():
    values = blobs(2000, 1.0, 0).values
    labels = RNG.integers(0, 6, 2000)
    train, test = of(values[:1000], labels[:1000]), of(values[1000:], labels[1000:])
    assert fit_linear(train, test)[0].top1 < 1 / 6 + 0.06


def test_two_classes_have_scores_of_their_own():
    features = blobs(400, 0.1, 0, classes=2)
    assert fit_linear(features, features)[0].top1 == 1.0


def test_a_penalty_at_an_end_of_its_range_is_told():
    """So strong a penalty as C = 1e-9 leaves nothing but the most frequent class."""
    apart = blobs(900, 0.05, 0)
    assert fit_linear(apart, apart, (0.1, 1.0))[0].at_end == "strongest"  # all equal
    weakest, _ = fit_linear(apart, apart, (1e-9, 1.0))
    assert (weakest.at_end, weakest.penalty) == ("weakest", 1.0)
    inner, _ = fit_linear(apart, apart, (1e-9, 1.0, 1.0))
    assert inner.at_end is None
    assert fit_linear(apart, apart, (1e-9,))[0].at_end is None  # no choice
