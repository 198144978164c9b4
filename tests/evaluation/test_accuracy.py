"""If this breaks, every published accuracy is another number."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from simclr_tf.evaluation.accuracy import mean_per_class, top_k

RNG = np.random.default_rng(0)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_as_scikit_learn_counts():
    scores, labels = RNG.normal(size=(200, 7)), RNG.integers(0, 7, 200)
    for k in (1, 3, 5):
        assert top_k(scores, labels, k) == top_k_accuracy_score(
            labels, scores, k=k, labels=range(7)
        )
    labels = np.minimum(labels, 4)  # two classes that are predicted but do not occur
    expected = balanced_accuracy_score(labels, scores.argmax(1))
    np.testing.assert_allclose(mean_per_class(scores, labels), expected)


def test_fewer_classes_than_k_and_classes_that_no_score_has():
    scores, labels = RNG.normal(size=(50, 3)), RNG.integers(0, 3, 50)
    assert top_k(scores, labels, 5) == 1.0
    assert top_k(scores, labels + 3, 5) == 0.0
