"""If this breaks, transfer results are of another protocol: penalty, validation part or metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.transfer import PENALTIES, fit_transfer, split_by_class


def blobs(count, seed, classes=4, spread=2.0, weights=None):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=weights)
    centres = np.random.default_rng(9).normal(size=(classes, 8))
    values = (centres[labels] + spread * rng.normal(size=(count, 8))).astype(np.float32)
    return Features(values, labels, np.arange(count))


def test_the_papers_penalties():
    """45 values between 1e-6 and 1e5, logarithmically spaced."""
    assert len(PENALTIES) == 45
    assert (PENALTIES[0], PENALTIES[-1]) == pytest.approx((1e-6, 1e5))
    np.testing.assert_allclose(np.diff(np.log10(PENALTIES)), 0.25)


@pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
def test_as_scikit_learn_chooses_and_then_trains_on_both(metric):
    train, validation, test = (
        blobs(n, s, weights=[0.7, 0.1, 0.1, 0.1]) for n, s in ((100, 0), (90, 1), (300, 2))
    )
    penalties = np.logspace(-4, 1, 6)

    def score(part, train_values, train_labels, penalty):
        model = LogisticRegression(C=1 / (penalty * len(train_labels)), tol=1e-8, max_iter=2000)
        predicted = model.fit(train_values, train_labels).predict(part.values)
        if metric == "top1":
            return (predicted == part.labels).mean()
        return balanced_accuracy_score(part.labels, predicted)

    result, _ = fit_transfer(train, validation, test, penalties=penalties, metric=metric)
    falling = sorted(penalties, reverse=True)
    expected = [score(validation, train.values, train.labels, p) for p in falling]
    assert [p.penalty for p in result.validation] == falling
    np.testing.assert_allclose([p.accuracy for p in result.validation], expected)
    assert result.penalty == falling[int(np.argmax(expected))]
    values = np.concatenate([train.values, validation.values])
    labels = np.concatenate([train.labels, validation.labels])
    assert getattr(result, metric) == pytest.approx(score(test, values, labels, result.penalty))
    assert (result.num_train, result.num_validation, result.num_test) == (100, 90, 300)
    assert result.converged and all(p.converged for p in result.validation)


def test_a_choice_at_an_end_of_the_range_is_told():
    parts = [blobs(80, s, spread=0.01) for s in range(3)]
    assert fit_transfer(*parts, penalties=[1e-3, 1e-2, 1e-1])[0].at_end == "strongest"  # all equal
    parts = [blobs(80, s, spread=0.01, weights=[0.7, 0.1, 0.1, 0.1]) for s in range(3)]
    # So strong a penalty leaves nothing but the most frequent class.
    assert fit_transfer(*parts, penalties=[1e8, 1e-3])[0].at_end == "weakest"
    assert fit_transfer(*parts, penalties=[1e8, 1e-3, 1e-4])[0].at_end is None


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_every_class_gives_its_share_and_nothing_is_lost(counts, share, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    index = np.arange(len(labels)) * 3
    features = Features(index[:, None].astype(np.float32), labels, index)
    rest, taken = split_by_class(features, share, seed)
    assert sorted([*rest.index, *taken.index]) == list(index)
    for part in (rest, taken):
        np.testing.assert_array_equal(part.values[:, 0], part.index)
        np.testing.assert_array_equal(part.labels, labels[part.index // 3])
        assert (np.diff(part.index) > 0).all()
    for label, count in enumerate(counts):
        assert (taken.labels == label).sum() == min(round(share * count), count - 1)


def test_another_seed_draws_another_part():
    features = blobs(200, 0)
    parts = [split_by_class(features, 0.5, seed)[1].index.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
