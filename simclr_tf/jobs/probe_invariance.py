"""`probe_invariance`: which transformations h keeps and z loses (the SimCLR paper's table 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gin

from simclr_tf.context import Context
from simclr_tf.data.source import Source
from simclr_tf.data.subset import sample
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import invariance
from simclr_tf.evaluation.features import REPRESENTATION
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Splits
from simclr_tf.training.failures import as_request_error

_PROJECTION = "projection"


@dataclasses.dataclass(frozen=True)
class Row:
    """Accuracy of predicting a transformation from h, from z, and by guessing."""

    chance: float
    representation: float
    projection: float


@gin.configurable
def probe_invariance(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    max_train: int = 10000,
    max_test: int = 5000,
) -> Result:
    """Predicts from h and from z which transformation an image went through.

    The paper pretrained with rotation, noise and Sobel filtering among the augmentations for its
    last three rows: z loses what it was trained to be invariant to.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder with its projection head, and the data.
      max_train: images to train on, each in one version.
      max_test: images to test on.

    Returns:
      The accuracies, which the command line writes into `results/probe_invariance.json`.
    """
    if min(max_train, max_test) < 1:
        raise RequestError(
            "probe_invariance.max_train and .max_test must be at least 1. Received: "
            f"{max_train} and {max_test}."
        )
    frozen = encoder(context=context, layer=_PROJECTION)
    with as_request_error():
        train = sample(frozen.data.train(), max_train, frozen.seed)
        test = sample(frozen.data.evaluation(), max_test, frozen.seed)
    with as_request_error():
        rows = {task.name: _row(frozen, task, train, test) for task in invariance.TASKS}
    splits = Splits.of(frozen.data, train, test)
    record = {
        "protocol": invariance.PROTOCOL,
        **splits.record(),
        "numbers": rows,
        "n": {"train": train.num_examples, "test": test.num_examples},
        **frozen.record(),
        "layer": [REPRESENTATION, _PROJECTION],
    }
    curves = {
        f"{task}/{layer}": getattr(row, layer)
        for task, row in rows.items()
        for layer in (REPRESENTATION, _PROJECTION)
    }
    text = f"{_table(rows)}\n{splits.lines()}"
    return Result(job="probe_invariance", text=text, record=record, curves=curves)


def _row(frozen: Frozen, task: invariance.Task, train: Source, test: Source) -> Row:
    transform = invariance.transform(task, frozen.seed)
    layers = (REPRESENTATION, _PROJECTION)
    seen, unseen = (
        frozen.encoder.features(source, layers, transform=transform) for source in (train, test)
    )
    found = {
        layer: invariance.accuracy(
            seen[layer].values,
            invariance.labels(task, frozen.seed, seen[layer].index),
            unseen[layer].values,
            invariance.labels(task, frozen.seed, unseen[layer].index),
            frozen.seed,
        )
        for layer in layers
    }
    return Row(chance=task.chance, **found)


def _table(rows: dict[str, Row]) -> str:
    lines = [f"{'what is predicted':<36}{'chance':>8}{'h':>8}{'z = g(h)':>10}"]
    for task, row in rows.items():
        lines.append(
            f"{task:<36}{row.chance:>8.1%}{row.representation:>8.1%}{row.projection:>10.1%}"
        )
    return "\n".join(lines)
