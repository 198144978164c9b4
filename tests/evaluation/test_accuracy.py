"""If this breaks, every published accuracy is another number."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score, top_k_accuracy_score

from simclr_tf.evaluation.accuracy import PerClass, top_k

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
    np.testing.assert_allclose(PerClass.of_scores(scores, labels).mean, expected)


def test_fewer_classes_than_k_and_classes_that_no_score_has():
    scores, labels = RNG.normal(size=(50, 3)), RNG.integers(0, 3, 50)
    assert top_k(scores, labels, 5) == 1.0
    assert top_k(scores, labels + 3, 5) == 0.0


def test_each_class_has_its_recall_under_its_name():
    scores = RNG.normal(size=(300, 9))
    labels = RNG.choice([1, 2, 5, 8], 300, p=[0.6, 0.2, 0.15, 0.05])
    names = [f"class {n}" for n in range(9)]
    rows = PerClass.of_scores(scores, labels).record(names)["per_class"]
    recalls = recall_score(labels, scores.argmax(1), labels=[1, 2, 5, 8], average=None)
    assert [row["class"] for row in rows] == ["class 1", "class 2", "class 5", "class 8"]
    assert [row["images"] for row in rows] == [(labels == n).sum() for n in (1, 2, 5, 8)]
    np.testing.assert_allclose([row["accuracy"] for row in rows], recalls)


def counted(*right_of):
    """Classes of which so many images of so many are right."""
    right = np.concatenate([np.arange(images) < count for count, images in right_of])
    return PerClass.of(right, np.repeat(np.arange(len(right_of)), [n for _, n in right_of]))


def test_text_tells_of_classes_where_they_are_unbalanced():
    assert counted((1, 10), (9, 15)).lines("ab") == []
    first, second = counted((1, 10), (12, 16)).lines("ab")
    assert first.startswith("balanced accuracy (mean per class) 42.50%;")
    assert first.endswith("the 2 classes have 10 to 16 test images")
    assert second == "by class: a 10.0% of 10, b 75.0% of 16"


def test_of_many_classes_the_worst_and_the_best_are_told():
    _, line = counted(*((n, 10) for n in range(1, 10)), (0, 20)).lines("abcdefghi\n")
    worst, best = line.split("; ")
    assert worst == "worst: \\n 0.0% of 20, a 10.0% of 10, b 20.0% of 10"
    assert best == "best: i 90.0% of 10, h 80.0% of 10, g 70.0% of 10"
