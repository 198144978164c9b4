"""If this breaks, linear evaluation and transfer report another classifier than the best one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from simclr_tf.evaluation import logistic


def data(classes, count=300, dim=12, seed=0):
    """Correlated features on scales from 0.01 to 100, far from zero: hard for a plain search."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = rng.normal(size=(classes, dim))[labels] + rng.normal(size=(count, dim))
    return (values @ rng.normal(size=(dim, dim))) * np.logspace(-2, 2, dim) + 3, labels


def naive_objective(features, labels, weights, biases, penalty):
    total = 0.0
    for x, y in zip(features, labels, strict=True):
        logits = [
            sum(x[d] * weights[d, k] for d in range(len(x))) + b for k, b in enumerate(biases)
        ]
        total += np.log(sum(np.exp(value) for value in logits)) - logits[y]
    return total / len(labels) + penalty / 2 * sum(w * w for w in weights.ravel())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), penalty=st.floats(0, 10))
def test_the_objective_is_the_formula_and_the_gradient_its_derivative(seed, penalty):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(7, 3)), rng.integers(0, 4, 7)
    weights, biases = rng.normal(size=(3, 4)), rng.normal(size=4)
    value, by_weights, by_biases = logistic.objective(features, labels, weights, biases, penalty)
    expected = naive_objective(features, labels, weights, biases, penalty)
    assert value == pytest.approx(expected, rel=1e-12)

    def difference(parameter, place, step=1e-6):
        values = []
        for sign in (1, -1):
            moved = {"weights": weights.copy(), "biases": biases.copy()}
            moved[parameter][place] += sign * step
            values.append(naive_objective(features, labels, **moved, penalty=penalty))
        return (values[0] - values[1]) / (2 * step)

    for place in np.ndindex(3, 4):
        assert by_weights[place] == pytest.approx(difference("weights", place), abs=1e-7)
    for place in range(4):
        assert by_biases[place] == pytest.approx(difference("biases", place), abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_minimum_is_that_of_scikit_learn(classes, dtype, monkeypatch):
    if dtype == np.float32:
        monkeypatch.setattr(logistic, "_DOUBLE_BYTES", 0)
    features, labels = data(classes)
    penalties = [1e-3, 10.0, 0.1]
    fitted = list(logistic.fit(features.astype(dtype), labels, penalties, tolerance=1e-6))
    assert [c.penalty for c in fitted] == sorted(penalties, reverse=True)
    for classifier in fitted:
        strength = (2 if classes == 2 else 1) / (len(labels) * classifier.penalty)
        oracle = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=500)
        expected = oracle.fit(features, labels).predict_proba(features)
        logits = classifier.logits(features)
        found = np.exp(logits - logits.max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == np.float64 else 2e-3)
        assert classifier.converged


def test_a_start_nearby_does_not_change_where_a_path_ends():
    features, labels = data(4)
    path = list(logistic.fit(features, labels, np.logspace(-3, 1, 5), tolerance=1e-7))
    alone = next(logistic.fit(features, labels, [1e-3], tolerance=1e-7))
    np.testing.assert_allclose(path[-1].weights, alone.weights, atol=1e-4)
    np.testing.assert_allclose(path[-1].biases, alone.biases, atol=1e-4)


def test_the_strongest_penalty_leaves_the_class_frequencies():
    """Biases carry no penalty."""
    features, labels = data(3, count=100)
    classifier = next(logistic.fit(features, labels, [1e12], tolerance=1e-8))
    probabilities = np.exp(classifier.logits(features))
    probabilities /= probabilities.sum(1, keepdims=True)
    frequencies = np.bincount(labels) / 100
    np.testing.assert_allclose(probabilities, np.tile(frequencies, (100, 1)), atol=1e-5)


def test_an_end_before_the_minimum_is_told():
    features, labels = data(4)
    assert not next(logistic.fit(features, labels, [1e-6], max_iterations=2)).converged


@pytest.mark.parametrize(
    ("labels", "penalties", "words"),
    [
        ([0, 3, 1], [0.1], "from 0 to 2"),
        ([0, -1, 1], [0.1], "from -1"),
        ([0, 2, 1], [0.1, 0.0], "Penalties must be positive"),
        ([0, 2, 1], [], "at least one"),
    ],
)
def test_what_cannot_be_fitted_is_refused(labels, penalties, words):
    with pytest.raises(ValueError, match=words):
        next(logistic.fit(np.ones((3, 2)), np.array(labels), penalties, num_classes=3))
