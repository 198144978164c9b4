"""Linear evaluation on features that were computed once: the encoder cannot change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from simclr_tf.errors import InvalidArgument
from simclr_tf.evaluation import logistic
from simclr_tf.evaluation.accuracy import PerClass, top_k
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.logistic import Classifier
from simclr_tf.evaluation.penalty_range import End, end_of

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
      mean_per_class: top-1 of each class, averaged over the classes: balanced accuracy.
      penalty: inverse regularization strength (scikit-learn's C) that did best on the validation
        part.
      at_end: "strongest" or "weakest" if the choice is an end of the range, so that a better one
        may lie beyond; otherwise None.
      num_train: number of training examples.
      num_test: number of test examples.
    """

    top1: float
    top5: float
    mean_per_class: float
    penalty: float
    at_end: End
    num_train: int
    num_test: int


def fit_linear(
    train: Features,
    test: Features,
    penalties: Sequence[float] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
    seed: int = 0,
) -> tuple[LinearResult, PerClass]:
    """Fits L2-regularised multinomial logistic regression by L-BFGS on standardized features.

    The penalty is chosen on a tenth of the training examples (at most 5,000), held out; then the
    classifier is trained on all of them. The test part is used once.

    Args:
      train: features to train on.
      test: features to test on.
      penalties: values of scikit-learn's C to choose from; among equals the smallest wins.
      max_iterations: limit of L-BFGS.
      seed: seed of the held-out choice.

    Returns:
      The numbers, and the accuracy of each class.

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
    best, at_end = 0, None
    if len(penalties) > 1 and len(held_out):
        x, y = features[held_out], labels[held_out]
        found = [top_k(c.logits(x), y, 1) for c in fit(rest, penalties)]
        best = int(np.argmax(found))
        at_end = end_of(best, len(penalties))
    classifier = next(fit(slice(None), [penalties[best]]))
    scores = classifier.logits((test.values - mean) / std)
    per_class = PerClass.of_scores(scores, test.labels)
    numbers = LinearResult(
        top1=top_k(scores, test.labels, 1),
        top5=top_k(scores, test.labels, 5),
        mean_per_class=per_class.mean,
        penalty=penalties[best],
        at_end=at_end,
        num_train=len(labels),
        num_test=len(test.labels),
    )
    return numbers, per_class
