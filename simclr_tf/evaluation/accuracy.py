"""Shares of test examples whose class is predicted: of all, and of each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from simclr_tf.names import shown

# Classes count as unbalanced where the largest has more than this many times the smallest's images.
_UNBALANCED = 1.5
_TOLD = 3


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


@dataclasses.dataclass(frozen=True, eq=False)
class PerClass:
    """Top-1 accuracy of each class among the labels, which is the class's recall.

    Attributes:
      labels: the classes' numbers, int64 [C], ascending.
      images: test examples of each class, int64 [C].
      accuracies: share of these whose class is predicted, float64 [C].
    """

    labels: np.ndarray
    images: np.ndarray
    accuracies: np.ndarray

    @classmethod
    def of(cls, right: np.ndarray, labels: np.ndarray) -> PerClass:
        """Counts by class.

        Args:
          right: whether each example's class is predicted, bool [N].
          labels: integer [N].
        """
        classes, places, images = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(classes, images, np.bincount(places, right) / images)

    @classmethod
    def of_scores(cls, scores: np.ndarray, labels: np.ndarray) -> PerClass:
        """Counts by class, from scores [N, K], of which the highest is the prediction."""
        return cls.of(scores.argmax(1) == labels, labels)

    @property
    def mean(self) -> float:
        """The mean over the classes: balanced accuracy, each class counting the same."""
        return float(self.accuracies.mean())

    @property
    def is_unbalanced(self) -> bool:
        """Whether class sizes differ so much that top-1 mostly tells of the large classes."""
        return bool(self.images.max() > _UNBALANCED * self.images.min())

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns the part of a result that tells of each class.

        Args:
          names: the classes' names by number.
        """
        columns = (self.labels.tolist(), self.images.tolist(), self.accuracies.tolist())
        return {
            "per_class": [
                {"class": names[label], "images": images, "accuracy": accuracy}
                for label, images, accuracy in zip(*columns, strict=True)
            ]
        }

    def lines(self, names: Sequence[str]) -> list[str]:
        """Returns a line of the mean and one of the worst and best classes; none if balanced."""
        if not self.is_unbalanced:
            return []
        order = np.argsort(self.accuracies, kind="stable")
        if len(order) <= 2 * _TOLD:
            told = f"by class: {self._told(order, names)}"
        else:
            worst, best = order[:_TOLD], order[: -_TOLD - 1 : -1]
            told = f"worst: {self._told(worst, names)}; best: {self._told(best, names)}"
        return [
            f"balanced accuracy (mean per class) {self.mean:.2%}; the {len(order)} classes have "
            f"{self.images.min():,} to {self.images.max():,} test images",
            told,
        ]

    def _told(self, rows: Iterable[int], names: Sequence[str]) -> str:
        return ", ".join(
            f"{shown(names[self.labels[r]])} {self.accuracies[r]:.1%} of {self.images[r]:,}"
            for r in rows
        )
