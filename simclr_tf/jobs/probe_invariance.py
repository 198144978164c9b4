"""`probe_invariance`: which transformations h and z keep (the SimCLR paper's table 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

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
_LAYERS = (REPRESENTATION, _PROJECTION)


@dataclasses.dataclass(frozen=True)
class Row:
    """Accuracy of predicting a transformation: by guessing, and from h and z of both networks."""

    chance: float
    untrained_representation: float
    untrained_projection: float
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

    Pretraining makes z lose what the augmentations change. A narrow z loses some of everything,
    even in an untrained network, which is measured too. So the paper's z is as wide as h
    (projection_head.output_dim = None), and for its last three rows the paper pretrained with
    rotation, noise and Sobel filtering among the augmentations, as gin/cifar10_invariance.gin does.

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
    networks = {"untrained_": frozen.untrained(), "": frozen}
    with as_request_error():
        rows = {task.name: _row(networks, task, train, test) for task in invariance.TASKS}
    head = frozen.networks["projection_head"]
    dimensions = {REPRESENTATION: head.input.shape[-1], _PROJECTION: head.outputs[-1].shape[-1]}
    splits = Splits.of(frozen.data, train, test)
    record = {
        "protocol": invariance.PROTOCOL,
        **splits.record(),
        "numbers": rows,
        "n": {"train": train.num_examples, "test": test.num_examples},
        **frozen.record(),
        "layer": _LAYERS,
        "dimensions": dimensions,
    }
    curves = {
        f"{task}/{layer}": getattr(row, layer) for task, row in rows.items() for layer in _LAYERS
    }
    text = f"{_table(rows, dimensions)}\n{splits.lines()}"
    return Result(job="probe_invariance", text=text, record=record, curves=curves)


def _row(networks: Mapping[str, Frozen], task: invariance.Task, train: Source, test: Source) -> Row:
    """Trains and tests a network on each layer of `networks`, which are named by prefix."""
    accuracies = {
        prefix + layer: accuracy
        for prefix, frozen in networks.items()
        for layer, accuracy in _accuracies(frozen, task, train, test).items()
    }
    return Row(chance=task.chance, **accuracies)


def _accuracies(
    frozen: Frozen, task: invariance.Task, train: Source, test: Source
) -> dict[str, float]:
    transform = invariance.transform(task, frozen.seed)
    seen, unseen = (
        frozen.encoder.features(source, _LAYERS, transform=transform) for source in (train, test)
    )
    return {
        layer: invariance.accuracy(
            seen[layer].values,
            invariance.labels(task, frozen.seed, seen[layer].index),
            unseen[layer].values,
            invariance.labels(task, frozen.seed, unseen[layer].index),
            frozen.seed,
        )
        for layer in _LAYERS
    }


def _table(rows: Mapping[str, Row], dimensions: Mapping[str, int]) -> str:
    wide, narrow = dimensions[REPRESENTATION], dimensions[_PROJECTION]
    names = ["chance", "untrained h", "untrained z", f"h [{wide}]", f"z [{narrow}]"]
    lines = [f"{'what is predicted':<34}" + "".join(f"{name:>13}" for name in names)]
    for task, row in rows.items():
        cells = "".join(f"{value:>13.1%}" for value in dataclasses.astuple(row))
        lines.append(f"{task:<34}{cells}")
    return "\n".join(lines)
