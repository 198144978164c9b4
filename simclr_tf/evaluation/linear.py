"""Linear evaluation on features that were computed once: the encoder cannot change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from simclr_tf.errors import InvalidArgument
from simclr_tf.evaluation import logistic
from simclr_tf.evaluation.accuracy import top_k
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.logistic import Classifier

PROTOCOL = (
    "L2-regularized logistic regression (L-BFGS) on standardized features of images without "
    "augmentation, computed once with training=False; penalty chosen on a held-out part of train"
)


@dataclasses.dataclass(frozen=True)
class LinearResult:
    """Result of a linear classifier.

    Attributes:
      top1: share of the test examples whose class is predicted.
      top5: share of those whose class is among the first five.
      penalty: inverse regularization strength (scikit-learn's C) that did best on the validation
        part.
      num_train: number of training examples.
      num_test: number of test examples.
    """

    top1: float
    top5: float
    penalty: float
    num_train: int
    num_test: int


def fit_linear(
    train: Features,
    test: Features,
    penalties: Sequence[float] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
    seed: int = 0,
) -> LinearResult:
    """Fits L2-regularised multinomial logistic regression by L-BFGS on standardized features.

    The penalty is chosen on a tenth of the training examples (at most 5,000), held out; then the
    classifier is trained on all of them. The test part is used once.

    Args:
      train: features to train on.
      test: features to test on.
      penalties: values of scikit-learn's C to choose from; among equals the smallest wins.
      max_iterations: limit of L-BFGS.
      seed: seed of the held-out choice.

    Raises:
      ValueError: there is no penalty, or one that is not positive.
    """
    if not len(penalties) or min(penalties) <= 0:
        raise InvalidArgument(
            f"Penalties must be positive, and at least one. Received: {penalties}."
        )
    mean, std = train.values.mean(0), train.values.std(0) + 1e-6
    features, labels = (train.values - mean) / std, train.labels

    def fit(rows: np.ndarray | slice, strengths: Sequence[float]) -> Iterator[Classifier]:
        x, y = features[rows], labels[rows]
        return logistic.fit(
            x, y, [1 / (c * len(y)) for c in strengths], max_iterations=max_iterations
        )

    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, rest = np.split(order, [min(len(order) // 10, 5000)])
    penalties = sorted(penalties)
    penalty = penalties[0]
    if len(penalties) > 1 and len(held_out):
        x, y = features[held_out], labels[held_out]
        found = [top_k(c.logits(x), y, 1) for c in fit(rest, penalties)]
        penalty = penalties[int(np.argmax(found))]
    classifier = next(fit(slice(None), [penalty]))
    scores = classifier.logits((test.values - mean) / std)
    return LinearResult(
        top1=top_k(scores, test.labels, 1),
        top5=top_k(scores, test.labels, 5),
        penalty=penalty,
        num_train=len(labels),
        num_test=len(test.labels),
    )
