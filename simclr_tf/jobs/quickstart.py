"""`quickstart`: pretrain on the embedded data set, and see what it brought."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import gin

from simclr_tf.evaluation.baselines import colour_histograms
from simclr_tf.evaluation.linear import PROTOCOL, fit_linear
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import as_request_error, refuse_workers, write_result
from simclr_tf.jobs.frozen import Frozen, frozen_encoder
from simclr_tf.jobs.pretrain import pretrain
from simclr_tf.jobs.pretrained import UNTRAINED, pretrained


@gin.configurable
def quickstart(
    context: Context,
    *,
    pretrain: Callable[..., str] = pretrain,
    encoder: Callable[..., Frozen] = frozen_encoder,
) -> dict:
    """Pretrains, then compares linear classifiers on three kinds of features.

    Args:
      context: what the command line says.
      pretrain: the pretraining job.
      encoder: gives the frozen encoder; the untrained one has its seed, so give it that of
        pretraining to compare with the run's very start.

    Returns:
      The numbers, which are also in `results/quickstart.json`.
    """
    refuse_workers()
    folder = pretrain(context)  # before anything else, since it chooses the devices
    simclr = encoder(context=context)
    untrained = encoder(
        context=context,
        pretrained=functools.partial(pretrained, path=UNTRAINED),
        strategy=lambda tpu: simclr.strategy,  # chosen again, a TPU would lose what lies on it
    )
    numbers = {
        "simclr": fit_linear(simclr.train(), simclr.test()),
        "untrained": fit_linear(untrained.train(), untrained.test()),
    }
    with as_request_error():
        train, test = simclr.data.train(), simclr.data.evaluation()
    size = simclr.data.image_size
    numbers["colour_histogram"] = fit_linear(
        colour_histograms(train, size), colour_histograms(test, size)
    )
    result = write_result(
        context.model_dir,
        "quickstart",
        protocol=PROTOCOL,
        numbers=numbers,
        chance=1 / train.num_classes,
        n={"train": train.num_examples, "test": test.num_examples},
        **simclr.record(),
    )
    rows = {
        "SimCLR encoder": numbers["simclr"].top1,
        "the same encoder, untrained": numbers["untrained"].top1,
        "colour histogram": numbers["colour_histogram"].top1,
        "chance": result["chance"],
    }
    print(f"\nlinear classifier on ...        test accuracy ({test.num_examples} images)")
    for name, accuracy in rows.items():
        print(f"  {name:<30}{accuracy:>7.1%}")
    print(
        f"\nencoder (SavedModel): {folder}\nfigures: {os.path.join(context.model_dir, 'figures')}",
        flush=True,
    )
    return result
