"""Linear evaluation on features that were computed once: the encoder cannot move."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf.evaluation.features import Features

PROTOCOL = (
    "L2-regularized logistic regression (L-BFGS) on standardized features of images without "
    "augmentation, computed once with training=False; penalty chosen on a held-out part of train"
)


@dataclasses.dataclass(frozen=True)
class LinearResult:
    """What a linear classifier reaches.

    Attributes:
      top1: share of the test examples whose class is found.
      top5: share of those whose class is among the first five.
      penalty: inverse regularization strength (scikit-learn's C) that did best on the validation
        part.
      num_train: training examples.
      num_test: test examples.
    """

    top1: float
    top5: float
    penalty: float
    num_train: int
    num_test: int


def fit_linear(
    train: Features,
    test: Features,
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
    seed: int = 0,
) -> LinearResult:
    """L2-regularised multinomial logistic regression by L-BFGS, on standardized features.

    The penalty is chosen on a tenth of the training examples (at most 5,000), held out; then the
    classifier is trained on all of them. The test part is looked at once.

    Args:
      train: what to train on.
      test: what to test on.
      penalties: values of scikit-learn's C to choose from.
      max_iterations: of L-BFGS.
      seed: of the held-out choice.
    """
    from sklearn.linear_model import LogisticRegression

    features, labels = train.values, train.labels
    mean, std = features.mean(0), features.std(0) + 1e-6

    def fit(x, y, penalty):
        model = LogisticRegression(C=penalty, max_iter=max_iterations, tol=1e-3)
        return model.fit((x - mean) / std, y)

    def scores(model, x) -> np.ndarray:
        decision = model.decision_function((x - mean) / std)
        return decision if decision.ndim == 2 else np.stack([-decision, decision], axis=1)

    def top(model, x, y, k) -> float:
        best = np.argsort(-scores(model, x), axis=1)[:, :k]
        return float((model.classes_[best] == y[:, None]).any(1).mean())

    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, rest = np.split(order, [min(len(order) // 10, 5000)])
    penalty = penalties[0]
    if len(penalties) > 1 and len(held_out):
        found = [
            top(fit(features[rest], labels[rest], c), features[held_out], labels[held_out], 1)
            for c in penalties
        ]
        penalty = penalties[int(np.argmax(found))]
    model = fit(features, labels, penalty)
    return LinearResult(
        top1=top(model, test.values, test.labels, 1),
        top5=top(model, test.values, test.labels, 5),
        penalty=penalty,
        num_train=len(labels),
        num_test=len(test.labels),
    )
