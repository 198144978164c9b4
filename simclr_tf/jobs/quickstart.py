"""`quickstart`: pretrain on the embedded data set, and see what it brought."""

from __future__ import annotations

import os
from collections.abc import Callable

import gin
import keras

from simclr_tf.data.data import Data, data
from simclr_tf.evaluation.baselines import colour_histograms
from simclr_tf.evaluation.features import representations
from simclr_tf.evaluation.linear import fit_linear
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import requests_checked, restore_encoder, write_result
from simclr_tf.jobs.linear_eval import labelled
from simclr_tf.jobs.pretrain import pretrain
from simclr_tf.models.resnet import resnet


@gin.configurable
def quickstart(
    context: Context,
    *,
    pretrain: Callable[..., str] = pretrain,
    data: Callable[..., Data] = data,
    encoder: Callable[..., keras.Model] = resnet,
    seed: int = 0,
) -> dict:
    """Pretrains, then compares linear classifiers on four kinds of features.

    Args:
      context: what the command line says.
      pretrain: the pretraining job.
      data: the labelled data set.
      encoder: builds the network, as in pretraining.
      seed: of the untrained encoder; that of pretraining, to compare with its very start.

    Returns:
      The numbers, which are also in `results/quickstart.json`.
    """
    folder = pretrain(context)  # before anything else, since it chooses the devices
    with requests_checked():
        recipe = data(data_dir=context.data_dir)
        train, test = labelled(recipe.train()), labelled(recipe.evaluation())
        keras.utils.set_random_seed(seed)
        model = encoder(image_size=recipe.image_size)

    def embedded() -> list:
        return [representations(model, source, recipe.image_size) for source in (train, test)]

    numbers = {"untrained": fit_linear(*embedded())}
    step = restore_encoder(context.model_dir, model)
    numbers["simclr"] = fit_linear(*embedded())
    numbers["colour_histogram"] = fit_linear(
        *(colour_histograms(source, recipe.image_size) for source in (train, test))
    )
    result = write_result(
        context.model_dir,
        "quickstart",
        protocol="L2-regularized logistic regression (L-BFGS) on standardized features",
        numbers=numbers,
        chance=1 / train.num_classes,
        checkpoint=step,
        data=train.name,
        seed=seed,
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
