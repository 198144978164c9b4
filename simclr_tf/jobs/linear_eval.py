"""`linear_eval`: what a linear classifier makes of the frozen encoder's representations."""

from __future__ import annotations

from collections.abc import Callable

import gin
import keras

from simclr_tf.data.data import Data, data
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.features import representations
from simclr_tf.evaluation.linear import LinearResult, fit_linear
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import (
    refuse_tpu,
    requests_checked,
    restore_encoder,
    write_result,
)
from simclr_tf.models.resnet import resnet


@gin.configurable
def linear_eval(
    context: Context,
    *,
    data: Callable[..., Data] = data,
    encoder: Callable[..., keras.Model] = resnet,
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
    untrained: bool = True,
    seed: int = 0,
) -> dict:
    """Logistic regression on representations of the newest checkpoint's encoder, computed once.

    Args:
      context: what the command line says.
      data: must name labelled train and evaluation splits.
      encoder: builds the network, as in pretraining.
      penalties: inverse regularization strengths to choose from on a held-out part of train.
      max_iterations: of L-BFGS.
      untrained: whether to evaluate the encoder's initial weights too, as a baseline.
      seed: of the untrained encoder and the held-out choice.

    Returns:
      The numbers, which are also in `results/linear_eval.json`.
    """
    refuse_tpu(context)
    with requests_checked():
        recipe = data(data_dir=context.data_dir)
        keras.utils.set_random_seed(seed)
        model = encoder(image_size=recipe.image_size)
        initial = model.get_weights()
        step = restore_encoder(context.model_dir, model)
        train, test = labelled(recipe.train()), labelled(recipe.evaluation())

    def evaluate() -> LinearResult:
        features = [representations(model, source, recipe.image_size) for source in (train, test)]
        return fit_linear(*features, tuple(penalties), max_iterations, seed)

    numbers = {"simclr": evaluate()}
    print(f"SimCLR, step {step}: {_words(numbers['simclr'])}", flush=True)
    if untrained:
        model.set_weights(initial)
        numbers["untrained"] = evaluate()
        print(f"the same encoder, untrained: {_words(numbers['untrained'])}", flush=True)
    return write_result(
        context.model_dir,
        "linear_eval",
        protocol="L2-regularized logistic regression (L-BFGS) on standardized representations of "
        "images without augmentation, computed once with training=False; penalty chosen on a "
        "held-out part of train",
        numbers=numbers,
        checkpoint=step,
        data=train.name,
        seed=seed,
    )


def labelled(source: Source) -> Source:
    """The source, if it has the labels that an evaluation needs.

    Raises:
      RequestError: it has none.
    """
    if source.num_classes is None:
        raise RequestError(
            f"Linear evaluation needs labels. Received: {source.name}, which has none. For a "
            "folder, put each class into a subfolder of its own."
        )
    return source


def _words(result: LinearResult) -> str:
    return (
        f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%} of {result.num_test} test images "
        f"(trained on {result.num_train}, C={result.penalty:g})"
    )
