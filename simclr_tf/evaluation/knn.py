"""Weighted k-nearest-neighbour classification by cosine similarity.

Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4: each of the k nearest training examples
votes for its class with weight exp(similarity / temperature). There k is 200 and the temperature
0.07; here it is 0.1, as in most libraries today.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from simclr_tf.errors import InvalidArgument
from simclr_tf.evaluation.accuracy import PerClass
from simclr_tf.evaluation.features import Features

PROTOCOL = (
    "weighted k-nearest neighbours (Wu et al. 2018): cosine similarity, votes weighted by "
    "exp(similarity / temperature); features of images without augmentation, computed once with "
    "training=False"
)
_BLOCK_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class KnnAccuracy:
    """Accuracy of one choice of k and temperature: shares of the test examples."""

    k: int
    temperature: float
    top1: float
    top5: float
    mean_per_class: float


def knn_accuracies(
    train: Features,
    test: Features,
    choices: Sequence[tuple[int, float]],
    *,
    block_bytes: int = _BLOCK_BYTES,
) -> tuple[list[KnnAccuracy], list[PerClass]]:
    """Classifies the test examples by their neighbours, for each (k, temperature) of `choices`.

    Neighbours are searched once, for the largest k. Among classes with equal votes the lower number
    comes first, and a class without a vote is not found.

    Args:
      train: the neighbours.
      test: the examples to classify.
      choices: pairs of k, at most the number of training examples, and a positive temperature.
      block_bytes: memory that a block of test examples may take, besides the features.

    Returns:
      The accuracies, and those of each class, by choice.

    Raises:
      ValueError: k or a temperature is out of its range.
    """
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    _check(choices, len(train.labels))
    places = np.zeros((len(choices), len(test.labels)), np.int32)
    largest = max(k for k, _ in choices)
    for rows, positions, similarities in nearest(
        test.values, train.values, largest, block_bytes=block_bytes, row_bytes=8 * num_classes
    ):
        neighbours = train.labels[positions]
        for choice, (k, temperature) in enumerate(choices):
            # Subtracting a row's largest similarity keeps exp from overflowing.
            gaps = similarities[:, :k].astype(np.float64) - similarities[:, :1]
            votes = _votes(neighbours[:, :k], np.exp(gaps / temperature), num_classes)
            places[choice, rows] = _places(votes, test.labels[rows])
    classes = [PerClass.of(of_choice < 1, test.labels) for of_choice in places]
    accuracies = [
        KnnAccuracy(
            k, temperature, float((place < 1).mean()), float((place < 5).mean()), per_class.mean
        )
        for (k, temperature), place, per_class in zip(choices, places, classes, strict=True)
    ]
    return accuracies, classes


def nearest(
    queries: np.ndarray,
    bank: np.ndarray,
    k: int,
    *,
    block_bytes: int = _BLOCK_BYTES,
    row_bytes: int = 0,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields the k most similar rows of the bank for each query, block by block of queries.

    Args:
      queries: float32 [M, D].
      bank: float32 [N, D].
      k: from 1 to N.
      block_bytes: memory that a block may take, besides the normalized bank.
      row_bytes: memory of it that the caller needs for each query.

    Yields:
      The block of queries; positions in the bank int64 [b, k], the most similar first; and cosine
      similarities float32 [b, k].
    """
    bank = _normalized(bank)
    # Per query: float32 similarities and int64 positions of every row of the bank, and the same of
    # the k found, with sorted copies.
    block = max(1, block_bytes // (12 * len(bank) + 48 * k + row_bytes + 8 * bank.shape[1]))
    for start in range(0, len(queries), block):
        rows = slice(start, min(start + block, len(queries)))
        yield rows, *_nearest_in_block(_normalized(queries[rows]), bank, k)


def _nearest_in_block(
    queries: np.ndarray, bank: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    similarities = queries @ bank.T
    positions = np.argpartition(similarities, -k, axis=1)[:, -k:]
    similarities = np.take_along_axis(similarities, positions, axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    ordered = (np.take_along_axis(part, order, axis=1) for part in (positions, similarities))
    return tuple(ordered)


def _check(choices: Sequence[tuple[int, float]], num_train: int) -> None:
    for k, temperature in choices:
        if not 1 <= k <= num_train or temperature <= 0:
            raise InvalidArgument(
                "k must be from 1 to the number of training examples, and the temperature "
                f"positive. Received: k={k}, temperature={temperature} with {num_train} examples."
            )


def _normalized(values: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def _votes(classes: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums weights [b, k] by their classes [b, k]: [b, K]."""
    cells = classes + num_classes * np.arange(len(classes))[:, None]
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(classes) * num_classes)
    return votes.reshape(len(classes), num_classes)


def _places(votes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many classes come before each example's own; K where its own has no vote."""
    own = votes[np.arange(len(labels)), labels][:, None]
    lower = np.arange(votes.shape[1]) < labels[:, None]
    before = ((votes > own) | ((votes == own) & lower)).sum(1)
    return np.where(own[:, 0] > 0, before, votes.shape[1] + 5)
