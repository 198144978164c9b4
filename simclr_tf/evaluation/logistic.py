"""Multinomial logistic regression by L-BFGS, for one L2 penalty or a whole path of them.

The objective, for features x_i [D], classes y_i, weights W [D, K] and biases b [K]:

    (1 / N) sum_i -log softmax(x_i W + b)[y_i]  +  (penalty / 2) ||W||^2

The cross-entropy is a mean and biases carry no penalty. scikit-learn's `LogisticRegression` has
its minimum where C = 1 / (N * penalty); for two classes, where it has one weight vector for both,
C = 2 / (N * penalty).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from simclr_tf.errors import InvalidArgument

# Features of up to this many bytes are computed in float64, larger ones in float32.
_DOUBLE_BYTES = 2**25


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier.

    Attributes:
      weights: float64 [D, K].
      biases: float64 [K].
      penalty: the penalty that it was fitted with.
      iterations: number of L-BFGS iterations.
      converged: whether L-BFGS converged before its last allowed iteration.
    """

    weights: np.ndarray
    biases: np.ndarray
    penalty: float
    iterations: int
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes logits: [N, D] -> [N, K], in the dtype of the features."""
        return features @ self.weights.astype(features.dtype) + self.biases.astype(features.dtype)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    penalties: Sequence[float],
    *,
    num_classes: int | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
) -> Iterator[Classifier]:
    """Fits one classifier for each penalty, from the strongest to the weakest.

    Each fit starts from the previous one, which is near. The search uses coordinates in which the
    curvature at the start is about 1 in every direction (from the eigenvectors of the features'
    covariance), so that tens of iterations suffice whatever the scale of the features is; the
    minimum is the same.

    Args:
      features: float [N, D].
      labels: integer [N], from 0 to K - 1.
      penalties: positive, in any order.
      num_classes: K; by default the largest label + 1.
      max_iterations: limit of L-BFGS, for each penalty.
      tolerance: L-BFGS ends at this largest component of the gradient, in those coordinates.

    Yields:
      The classifiers, in the order of decreasing penalties.

    Raises:
      ValueError: there is no example, a penalty is not positive, or a label is out of range.
    """
    num_classes = num_classes or int(labels.max(initial=0)) + 1
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise InvalidArgument(
            f"Labels must be at least one, from 0 to {num_classes - 1}. Received: "
            f"{len(labels)} labels" + (f" from {labels.min()}." if len(labels) else ".")
        )
    if not len(penalties) or min(penalties) <= 0:
        raise InvalidArgument(
            f"Penalties must be positive, and at least one. Received: {penalties}."
        )
    problem = _Problem(features, labels, num_classes)
    weights, biases = np.zeros((features.shape[1], num_classes)), np.zeros(num_classes)
    for penalty in sorted(penalties, reverse=True):
        classifier = problem.solve(penalty, weights, biases, max_iterations, tolerance)
        weights, biases = classifier.weights, classifier.biases
        yield classifier


def objective(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    penalty: float,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns the objective and its gradient.

    Args:
      features: float [N, D]; products with it are computed in its dtype.
      labels: integer [N].
      weights: [D, K].
      biases: [K].
      penalty: L2 penalty of the weights.

    Returns:
      The value, and its derivatives by weights [D, K] and by biases [K], float64.
    """
    rows = np.arange(len(labels))
    logits = features @ weights.astype(features.dtype)
    logits += biases.astype(features.dtype)
    logits -= logits.max(1, keepdims=True)
    of_label = logits[rows, labels]
    probabilities = np.exp(logits, out=logits)
    sums = probabilities.sum(1)
    value = (np.log(sums) - of_label).mean(dtype=np.float64)
    value += 0.5 * penalty * np.square(weights).sum()
    probabilities /= sums[:, None]
    probabilities[rows, labels] -= 1
    by_weights = (features.T @ probabilities).astype(np.float64) / len(labels) + penalty * weights
    return float(value), by_weights, probabilities.mean(0, dtype=np.float64)


class _Problem:
    """Features and labels, with the values that every penalty's search shares."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, num_classes: int):
        dtype = np.float64 if 8 * features.size <= _DOUBLE_BYTES else np.float32
        self._features = np.ascontiguousarray(features, dtype)
        self._labels = labels
        self._mean = self._features.mean(0, dtype=np.float64)
        second = (self._features.T @ self._features).astype(np.float64) / len(labels)
        variances, self._basis = np.linalg.eigh(second - np.outer(self._mean, self._mean))
        # Curvature of the softmax at equal probabilities.
        self._softmax_curvature = (num_classes - 1) / num_classes**2
        self._curvatures = self._softmax_curvature * np.maximum(variances, 0)

    def solve(
        self,
        penalty: float,
        weights: np.ndarray,
        biases: np.ndarray,
        max_iterations: int,
        tolerance: float,
    ) -> Classifier:
        from scipy.optimize import minimize

        shape = weights.shape
        # W = basis * scale * V, and biases are those for features with a mean of zero.
        scale = 1 / np.sqrt(self._curvatures + penalty)[:, None]
        bias_scale = 1 / np.sqrt(self._softmax_curvature)

        def unpack(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            w = self._basis @ (scale * vector[: -shape[1]].reshape(shape))
            return w, bias_scale * vector[-shape[1] :] - self._mean @ w

        def value_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
            value, by_w, by_b = objective(self._features, self._labels, *unpack(vector), penalty)
            by_v = scale * (self._basis.T @ (by_w - np.outer(self._mean, by_b)))
            return value, np.concatenate([by_v.reshape(-1), bias_scale * by_b])

        start_biases = (biases + self._mean @ weights) / bias_scale
        start = np.concatenate([((self._basis.T @ weights) / scale).reshape(-1), start_biases])
        found = minimize(
            value_and_gradient,
            start,
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-12, "maxcor": 20},
        )
        # Status 2 (float32 cannot carry the line search further) counts as converged, too.
        return Classifier(*unpack(found.x), penalty, int(found.nit), found.status != 1)
