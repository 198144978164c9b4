"""If this breaks, classifiers learn something else than cross-entropy, or are counted wrongly."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.objectives.cross_entropy import cross_entropies, label_ranks


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_ranks_and_losses_against_naive_loops(classes, rows, seed, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    labels = rng.integers(-1, classes, rows)
    ranks = label_ranks(tf.constant(logits), tf.constant(labels)).numpy()
    losses = cross_entropies(tf.constant(logits), tf.constant(labels)).numpy()
    for row, label, rank, loss in zip(logits.astype(float), labels, ranks, losses, strict=True):
        if label < 0:
            assert rank > 10**9 and loss == 0
            continue
        assert rank == sorted(range(classes), key=lambda c: (-row[c], c)).index(label)
        expected = math.log(sum(math.exp(x) for x in row)) - row[label]
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
