"""Transfer by logistic regression on frozen features, as in the SimCLR paper's appendix B.8.

Chen et al. 2020, https://arxiv.org/abs/2002.05709: L2-regularized multinomial logistic regression
by L-BFGS without augmentation; the penalty is one of 45 between 1e-6 and 1e5, the best on a
validation part, and the classifier is then trained on train and validation together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from simclr_tf.evaluation import logistic
from simclr_tf.evaluation.accuracy import PerClass, top_k
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.penalty_range import End, end_of

PROTOCOL = (
    "SimCLR appendix B.8: multinomial logistic regression (L-BFGS; mean cross-entropy + penalty/2 "
    "* squared weights, biases free) on features as they are, not standardized, of images without "
    "augmentation, computed once with training=False; penalty chosen on a validation part, then "
    "trained on train and validation. Unlike B.8, images larger than 32 px are cut to the central "
    "87.5 % of the shorter side, as in the reference's linear evaluation"
)
PENALTIES = tuple(float(p) for p in np.logspace(-6, 5, 45))
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top1": lambda scores, labels: top_k(scores, labels, 1),
    "mean_per_class": lambda scores, labels: PerClass.of_scores(scores, labels).mean,
}


@dataclasses.dataclass(frozen=True)
class Point:
    """Accuracy of a penalty on the validation part."""

    penalty: float
    accuracy: float
    iterations: int
    converged: bool


@dataclasses.dataclass(frozen=True)
class TransferResult:
    """Result of a classifier whose penalty was chosen on a validation part.

    Attributes:
      top1: share of the test examples whose class is predicted.
      top5: share of those whose class is among the first five.
      mean_per_class: top-1 of each class, averaged over the classes: balanced accuracy.
      metric: the metric by which the penalty was chosen.
      penalty: the chosen one; the strongest among equals.
      at_end: "strongest" or "weakest" if the choice is an end of the range, so that a better
        one may lie beyond; otherwise None.
      validation: the accuracy by penalty, the strongest first, in that metric.
      converged: whether the last fit converged before its last allowed iteration.
      num_train: examples of the train part, without the validation part.
      num_validation: examples of the validation part.
      num_test: number of test examples.
    """

    top1: float
    top5: float
    mean_per_class: float
    metric: str
    penalty: float
    at_end: End
    validation: tuple[Point, ...]
    converged: bool
    num_train: int
    num_validation: int
    num_test: int


def fit_transfer(
    train: Features,
    validation: Features,
    test: Features,
    *,
    penalties: Sequence[float] = PENALTIES,
    metric: str = "top1",
    max_iterations: int = 1000,
) -> tuple[TransferResult, PerClass]:
    """Chooses the penalty on `validation`, trains on both, and tests once on `test`.

    Args:
      train: features to train on.
      validation: features to choose by.
      test: features to test on.
      penalties: of the mean cross-entropy, as defined in `logistic`; so they mean the same for
        any number of examples.
      metric: a key of METRICS.
      max_iterations: limit of L-BFGS, for each penalty.

    Returns:
      The numbers, and the accuracy of each class.
    """
    num_classes = int(max(train.labels.max(), validation.labels.max())) + 1
    points: list[Point] = []
    for classifier in logistic.fit(
        train.values,
        train.labels,
        penalties,
        num_classes=num_classes,
        max_iterations=max_iterations,
    ):
        accuracy = METRICS[metric](classifier.logits(validation.values), validation.labels)
        points.append(
            Point(classifier.penalty, accuracy, classifier.iterations, classifier.converged)
        )
    best = int(np.argmax([point.accuracy for point in points]))
    both = np.concatenate([train.values, validation.values])
    labels = np.concatenate([train.labels, validation.labels])
    classifier = next(
        logistic.fit(both, labels, [points[best].penalty], max_iterations=max_iterations)
    )
    scores = classifier.logits(test.values)
    per_class = PerClass.of_scores(scores, test.labels)
    result = TransferResult(
        top1=top_k(scores, test.labels, 1),
        top5=top_k(scores, test.labels, 5),
        mean_per_class=per_class.mean,
        metric=metric,
        penalty=classifier.penalty,
        at_end=end_of(best, len(points)),
        validation=tuple(points),
        converged=classifier.converged,
        num_train=len(train.labels),
        num_validation=len(validation.labels),
        num_test=len(test.labels),
    )
    return result, per_class


def split_by_class(features: Features, share: float, seed: int) -> tuple[Features, Features]:
    """Splits off the same share of every class, drawn by `seed`.

    A class of n examples loses round(share * n) of them, and always keeps one.

    Args:
      features: with labels.
      share: between 0 and 1.
      seed: seed of the draw.

    Returns:
      The remaining part and the part split off, both in the given order.
    """
    taken = np.zeros(len(features.labels), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(features.labels):
        (rows,) = np.nonzero(features.labels == label)
        count = min(round(share * len(rows)), len(rows) - 1)
        taken[rng.permutation(rows)[:count]] = True

    def part(rows: np.ndarray) -> Features:
        return Features(features.values[rows], features.labels[rows], features.index[rows])

    return part(~taken), part(taken)
