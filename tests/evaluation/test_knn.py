"""If this breaks, accuracies of nearest neighbours are wrong, or large data end in no memory."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.knn import knn_accuracies, nearest

CHOICES = [(1, 0.1), (3, 0.02), (7, 0.1), (20, 0.5), (20, 0.001)]


def of(values, labels):
    return Features(values.astype(np.float32), labels, np.arange(len(labels)))


def blobs(count, seed, classes=7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, 6))
    return of(centres[labels] + 1.2 * rng.normal(size=(count, 6)), labels)


def naive(train, test, k, temperature, classes=7):
    """Loops in float64, straight from section 3.4."""
    top1 = top5 = 0
    for query, label in zip(test.values.astype(np.float64), test.labels, strict=True):
        similar = []
        for other, other_label in zip(train.values.astype(np.float64), train.labels, strict=True):
            cosine = query @ other / (np.linalg.norm(query) * np.linalg.norm(other))
            similar.append((cosine, other_label))
        similar.sort(key=lambda pair: -pair[0])
        # exp(s / T) overflows at a temperature of 0.001, a common factor of all votes does not.
        largest = similar[0][0]
        votes = [0.0] * classes
        for cosine, other_label in similar[:k]:
            votes[other_label] += math.exp((cosine - largest) / temperature)
        ranking = sorted((c for c in range(classes) if votes[c] > 0), key=lambda c: -votes[c])
        top1 += label in ranking[:1]
        top5 += label in ranking[:5]
    return top1 / len(test.labels), top5 / len(test.labels)


@pytest.mark.parametrize("block_bytes", [1, 5000, 2**28])
def test_as_the_formula_says_whatever_the_blocks(block_bytes):
    train, test = blobs(60, 0), blobs(41, 1)
    found, _ = knn_accuracies(train, test, CHOICES, block_bytes=block_bytes)
    for (k, temperature), accuracy in zip(CHOICES, found, strict=True):
        assert (accuracy.k, accuracy.temperature) == (k, temperature)
        assert (accuracy.top1, accuracy.top5) == naive(train, test, k, temperature)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3))
def test_neither_lengths_nor_order_matter(seed, scale):
    train, test = blobs(50, seed), blobs(20, seed + 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(50)
    lengths = scale * rng.uniform(0.5, 2, (50, 1))
    changed = of((train.values * lengths)[order], train.labels[order])
    longer = of(test.values * scale, test.labels)
    assert knn_accuracies(changed, longer, CHOICES)[0] == knn_accuracies(train, test, CHOICES)[0]


def test_neighbours_come_in_order_with_their_similarities():
    train, test = blobs(30, 0).values, blobs(5, 1).values
    cosine = (test @ train.T) / np.outer(*(np.linalg.norm(v, axis=1) for v in (test, train)))
    for rows, positions, similarities in nearest(test, train, 30, block_bytes=3000):
        np.testing.assert_array_equal(positions, np.argsort(-cosine[rows], axis=1))
        np.testing.assert_allclose(similarities, -np.sort(-cosine[rows], axis=1), atol=1e-6)


def test_a_class_that_no_neighbour_has_is_not_found():
    train = of(np.eye(3), np.array([0, 1, 1]))
    test = of(np.eye(3)[:1], np.array([2]))
    assert knn_accuracies(train, test, [(3, 0.1)])[0][0].top5 == 0


def test_memory_stays_within_the_budget():
    train, test = blobs(20_000, 0), blobs(500, 1)
    budget = 4 * 2**20
    knn_accuracies(train, test, [(1, 0.1)], block_bytes=budget)
    tracemalloc.start()
    knn_accuracies(train, test, [(200, 0.1), (20, 0.5)], block_bytes=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget + 3 * train.values.nbytes  # all 500 at once would take 120 MB
    assert peak > budget / 2


@pytest.mark.parametrize("choice", [(0, 0.1), (11, 0.1), (3, 0.0)])
def test_choices_out_of_range_are_refused(choice):
    with pytest.raises(ValueError, match=r"k must be from 1 .* with 10 examples"):
        knn_accuracies(blobs(10, 0), blobs(3, 1), [choice])
