"""`lbfgs`: the SimCLR paper's transfer protocol (appendix B.8) on the frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import gin

from simclr_tf.context import Context
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import penalty_range
from simclr_tf.evaluation.accuracy import PerClass
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.frozen_encoder import Frozen, check_classes, frozen_encoder, labelled
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Split, Splits
from simclr_tf.evaluation.transfer import (
    PENALTIES,
    PROTOCOL,
    TransferResult,
    fit_transfer,
    split_by_class,
)
from simclr_tf.training.failures import as_request_error

# The paper reports the mean of the accuracies by class for these (B.8), as their authors ask.
_MEAN_PER_CLASS = ("aircraft", "oxford_iiit_pet", "caltech101", "oxford_flowers102")


@gin.configurable
def lbfgs(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    penalties: Sequence[float] = PENALTIES,
    validation_split: str | None = None,
    validation_share: float = 0.1,
    metric: Literal["auto", "top1", "mean_per_class"] = "auto",
    max_iterations: int = 1000,
) -> Result:
    """Fits logistic regression with one of 45 penalties, chosen on a validation part.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder and the data.
      penalties: L2 penalties of the mean cross-entropy to choose from.
      validation_split: split of the data; None takes a part of the training split.
      validation_share: share of each class of the training split, if there is no validation split.
      metric: the metric that chooses the penalty and is reported; 'auto' is the mean accuracy per
        class for the tfds data sets for which the paper reports that (FGVC Aircraft, Oxford-IIIT
        Pets, Caltech-101, Oxford 102 Flowers), and top-1 for all others.
      max_iterations: limit of L-BFGS, for each penalty.

    Returns:
      The accuracies, which the command line writes into `results/lbfgs.json`.
    """
    if not 0 < validation_share < 1:
        raise RequestError(
            "lbfgs.validation_share must be between 0 and 1. Received: "
            f"lbfgs.validation_share={validation_share}."
        )
    frozen = encoder(context=context)
    source = _validation_source(frozen, validation_split) if validation_split else None
    train, test, splits = frozen.splits()
    if source:
        validation = frozen.features(source)
        check_classes(train, validation, frozen.sources()[0].class_names)
        splits = splits.also("validation", Split.of(source, validation_split, validation.labels))
    else:
        train, validation = _split(train, validation_share, frozen.seed)
    if metric == "auto":
        metric = "mean_per_class" if _asks_for_mean_per_class(frozen.data.spec) else "top1"
    with as_request_error():
        numbers, per_class = fit_transfer(
            train,
            validation,
            test,
            penalties=tuple(penalties),
            metric=metric,
            max_iterations=max_iterations,
        )
    validated = validation_split or f"{validation_share:g} of each class of train"
    return _result(frozen, numbers, per_class, splits.warned(_warnings(numbers)), validated)


def _validation_source(frozen: Frozen, split: str) -> Source:
    if split in (frozen.data.train_split, frozen.data.eval_split):
        raise RequestError(
            "The validation split must be neither the one to train on nor the one to test on. "
            f"Received: lbfgs.validation_split={split!r}."
        )
    with as_request_error():
        return labelled(frozen.data.held_out(split, "lbfgs.validation_split"))


def _split(train: Features, share: float, seed: int) -> tuple[Features, Features]:
    train, validation = split_by_class(train, share, seed)
    if not len(validation.labels):
        raise RequestError(
            f"The validation part must have images. Received: lbfgs.validation_share={share} of "
            f"{len(train.labels)} images. Raise it, or set lbfgs.validation_split."
        )
    return train, validation


def _asks_for_mean_per_class(spec: str) -> bool:
    return spec.startswith("tfds:") and any(name in spec for name in _MEAN_PER_CLASS)


def _result(
    frozen: Frozen, numbers: TransferResult, per_class: PerClass, splits: Splits, validated: str
) -> Result:
    names = frozen.sources()[0].class_names
    record = {
        "protocol": PROTOCOL,
        "validation": validated,
        "numbers": numbers,
        **per_class.record(names),
        **splits.record(),
        "n": {
            "train": numbers.num_train,
            "validation": numbers.num_validation,
            "test": numbers.num_test,
        },
        **frozen.record(),
    }
    return Result(
        job="lbfgs",
        text="\n".join([_text(frozen, numbers), *per_class.lines(names), splits.lines()]),
        record=record,
        curves={name: getattr(numbers, name) for name in ("top1", "top5", "mean_per_class")},
    )


def _warnings(numbers: TransferResult) -> list[str]:
    found = penalty_range.warnings(numbers.at_end, "lbfgs.penalties", numbers.penalty)
    if not numbers.converged:
        found.append("L-BFGS was stopped by lbfgs.max_iterations. Raise it.")
    return found


def _text(frozen: Frozen, numbers: TransferResult) -> str:
    lines = ["   penalty   validation"]
    for point in numbers.validation:
        mark = "  <" if point.penalty == numbers.penalty else ""
        lines.append(f"{point.penalty:>10.1e}{point.accuracy:>13.2%}{mark}")
    accuracy = getattr(numbers, numbers.metric)
    lines.append(
        f"logistic regression on {frozen.layer} of {frozen.weights.path}: {numbers.metric} "
        f"{accuracy:.2%} (top-1 {numbers.top1:.2%}, top-5 {numbers.top5:.2%}) of "
        f"{numbers.num_test} test images (trained on {numbers.num_train} + "
        f"{numbers.num_validation}, penalty {numbers.penalty:.1e})"
    )
    return "\n".join(lines)
