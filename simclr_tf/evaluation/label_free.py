"""Measures of features that need no labels, in float64.

- RankMe, Garrido et al., ICML 2023, https://arxiv.org/abs/2210.02885, equation 1.
- alpha-ReQ, Agrawal et al., NeurIPS 2022, https://openreview.net/forum?id=ii9X4vtZGTZ.
- Alignment and uniformity, Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242, section 4.

Shapes: N images, D numbers each.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PROTOCOL = (
    "RankMe: exp of the entropy of the features' singular values, as shares of their sum, the "
    "features not centred; alpha-ReQ: the exponent of a power law through the eigenvalues of "
    "their covariance; both on images without augmentation. Alignment: the mean squared distance "
    "of two augmented views of an image; uniformity: log of the mean of exp(-2 * squared "
    "distance) over pairs of different images, the mean over the two views; both on features of "
    "length 1. Features computed with training=False"
)
# The eigenvalues that the power law is fitted to, and the weights below, are those of the authors'
# program (github.com/kumarkrishna/fastssl); the paper names neither.
_FIRST_RANK, _LAST_RANK = 4, 100
# Eigenvalues below this share of the largest are rounding errors.
_NOISE = 1e-12
_EPSILON = 1e-7
_BLOCK_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """How the features fill their dimensions.

    Attributes:
      singular_values: of the features, not centred, float64 [min(N, D)], falling.
      eigenvalues: of their covariance, float64 [D], falling.
    """

    singular_values: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, block_rows: int = _BLOCK_ROWS) -> Spectrum:
        """Computes both from sums of products, for which D * D numbers are held.

        Args:
          features: float [N, D], N at least 1.
          block_rows: rows that are converted to float64 at a time.
        """
        count, dimensions = features.shape
        products = np.zeros((dimensions, dimensions))
        for start in range(0, count, block_rows):
            block = features[start : start + block_rows].astype(np.float64)
            products += block.T @ block
        mean = features.mean(0, dtype=np.float64)
        squares = _falling_eigenvalues(products)[: min(count, dimensions)]
        covariance = products / count - np.outer(mean, mean)
        return cls(np.sqrt(squares), _falling_eigenvalues(covariance))

    def rankme(self) -> float:
        """Returns the effective rank, from 1 to min(N, D).

        The constant that the paper adds to each share makes it up to 2e-6 * D too large.
        """
        total = max(self.singular_values.sum(), np.finfo(np.float64).tiny)
        shares = self.singular_values / total + _EPSILON
        return float(np.exp(-np.sum(shares * np.log(shares))))

    def fitted_ranks(self) -> tuple[int, int] | None:
        """Returns the first and the last rank of `alpha_req`; None where there are less than two.

        The ranks are 4 to 100, or to the last eigenvalue that is above rounding errors.
        """
        usable = int(np.sum(self.eigenvalues > _NOISE * self.eigenvalues[0]))
        last = min(usable, _LAST_RANK)
        return (_FIRST_RANK, last) if last > _FIRST_RANK else None

    def alpha_req(self) -> float | None:
        """Returns alpha of eigenvalue ~ rank^-alpha; None where there is nothing to fit.

        Least squares of the logarithms over `fitted_ranks`, each weighted by 1 / rank, so that
        equal parts of the logarithmic axis count the same.
        """
        fitted = self.fitted_ranks()
        if fitted is None:
            return None
        first, last = fitted
        ranks = np.arange(first, last + 1)
        x, y = np.log(ranks), np.log(self.eigenvalues[first - 1 : last])
        x, y = x - np.average(x, weights=1 / ranks), y - np.average(y, weights=1 / ranks)
        return float(-np.sum(x * y / ranks) / np.sum(x * x / ranks))


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean squared distance of two views' directions: 0 (equal) to 4 (opposite).

    Args:
      first: features of one view of each image, float [N, D].
      second: those of another view, in the same order.
    """
    return float(np.square(_unit(first) - _unit(second)).sum(1).mean())


def uniformity(features: np.ndarray, block_rows: int = _BLOCK_ROWS) -> float:
    """Returns log mean exp(-2 ||u - v||^2) over pairs of rows' directions: -4 (even) to 0 (equal).

    Two opposite directions alone have -8. Among many, -4 is the limit in high dimensions.

    Args:
      features: float [N, D] of different images, N at least 2.
      block_rows: rows that are compared with all at a time.
    """
    unit = _unit(features)
    lengths = np.square(unit).sum(1)
    count, total = len(unit), 0.0
    for start in range(0, count, block_rows):
        rows = slice(start, start + block_rows)
        squared = lengths[rows, None] + lengths - 2 * unit[rows] @ unit.T
        similar = np.exp(-2 * np.maximum(squared, 0))
        similar[np.arange(len(similar)), np.arange(start, start + len(similar))] = 0  # itself
        total += similar.sum()
    return float(np.log(total / (count * (count - 1))))


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float64).tiny)


def _falling_eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.eigvalsh(symmetric)[::-1], 0)
