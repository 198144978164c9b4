"""Shares of test examples whose class is predicted."""

from __future__ import annotations

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns the share of examples whose class is among the k with the highest scores.

    Among classes with equal scores the lower number comes first.

    Args:
      scores: float [N, K].
      labels: integer [N]; a label of K or more is a class that is never found.
      k: at least 1.
    """
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((first == labels[:, None]).any(1).mean())


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the top-1 accuracy of each class among the labels, averaged over these classes.

    Args:
      scores: float [N, K].
      labels: integer [N].
    """
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
