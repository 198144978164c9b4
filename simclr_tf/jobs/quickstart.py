"""`quickstart`: pretrains on the embedded data set, and compares the result with baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import gin

from simclr_tf.context import Context
from simclr_tf.distribute.strategy import refuse_workers
from simclr_tf.evaluation.baselines import colour_histograms
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.linear import PROTOCOL, fit_linear
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Splits
from simclr_tf.jobs.pretrain import pretraining, train_and_export
from simclr_tf.training.failures import as_request_error
from simclr_tf.training.run import Run


@gin.configurable
def quickstart(
    context: Context,
    *,
    pretrain: Callable[..., Run] = pretraining,
    encoder: Callable[..., Frozen] = frozen_encoder,
) -> Result:
    """Pretrains, then compares linear classifiers on three kinds of features.

    Args:
      context: the command line's values.
      pretrain: the pretraining job.
      encoder: gives the frozen encoder; the untrained one is initialized from its seed, so use
        pretraining's seed to compare with the run's very start.

    Returns:
      The accuracies, which the command line writes into `results/quickstart.json`.
    """
    refuse_workers()
    folder = train_and_export(
        pretrain(context)
    )  # before anything else, since it chooses the devices
    simclr = encoder(context=context)
    untrained = simclr.untrained()
    numbers = {
        "simclr": fit_linear(simclr.train(), simclr.test())[0],
        "untrained": fit_linear(untrained.train(), untrained.test())[0],
    }
    with as_request_error():
        train, test = simclr.data.train(), simclr.data.evaluation()
    size = simclr.data.image_size
    numbers["colour_histogram"], _ = fit_linear(
        colour_histograms(train, size), colour_histograms(test, size)
    )
    splits = Splits.of(simclr.data, train, test)
    record = {
        "protocol": PROTOCOL,
        **splits.record(),
        "numbers": numbers,
        "chance": 1 / train.num_classes,
        "n": {"train": train.num_examples, "test": test.num_examples},
        **simclr.record(),
    }
    text = (
        f"{_table(record)}\n\n{splits.lines()}\nencoder (SavedModel): {folder}\n"
        f"figures: {os.path.join(context.model_dir, 'figures')}"
    )
    return Result(job="quickstart", text=text, record=record)


def _table(record: Mapping[str, Any]) -> str:
    rows = {
        "SimCLR encoder": record["numbers"]["simclr"].top1,
        "the same encoder, untrained": record["numbers"]["untrained"].top1,
        "colour histogram": record["numbers"]["colour_histogram"].top1,
        "chance": record["chance"],
    }
    head = f"\nlinear classifier on ...        test accuracy ({record['n']['test']} images)"
    return "\n".join([head, *(f"  {name:<30}{share:>7.1%}" for name, share in rows.items())])
