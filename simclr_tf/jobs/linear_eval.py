"""`linear_eval`: the accuracy of a linear classifier on the frozen encoder's representations."""

from __future__ import annotations

from collections.abc import Callable

import gin

from simclr_tf.context import Context
from simclr_tf.evaluation.features import REPRESENTATION
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.linear import PROTOCOL, fit_linear
from simclr_tf.evaluation.penalty_range import warnings
from simclr_tf.evaluation.result import Result
from simclr_tf.export.weights import PretrainedWeights, pretrained
from simclr_tf.jobs.classifier import ClassifierRun, classifier_training, train_and_test
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP, ClassifierTask
from simclr_tf.models.networks import Networks


@gin.configurable(denylist=["context"])
def cached(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
) -> Result:
    """Fits logistic regression on features that are computed once: seconds on a CPU.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder and the data.
      penalties: inverse regularization strengths to choose from on a held-out part of train.
      max_iterations: limit of L-BFGS.

    Returns:
      The accuracies, which the command line writes into `results/linear_eval.json`.
    """
    frozen = encoder(context=context)
    train, test, splits = frozen.splits()
    numbers, per_class = fit_linear(train, test, tuple(penalties), max_iterations, frozen.seed)
    splits = splits.warned(
        warnings(numbers.at_end, "cached.penalties", numbers.penalty, inverse=True)
    )
    names = frozen.sources()[0].class_names
    said = (
        f"linear classifier on {frozen.layer} of {frozen.weights.path}: top-1 {numbers.top1:.2%}, "
        f"top-5 {numbers.top5:.2%} of {numbers.num_test} test images (trained on "
        f"{numbers.num_train}, C={numbers.penalty:g})"
    )
    return Result(
        job="linear_eval",
        text="\n".join([said, *per_class.lines(names), splits.lines()]),
        record={
            "protocol": PROTOCOL,
            "numbers": numbers,
            "n": {"train": numbers.num_train, "test": numbers.num_test},
            "preset": "cached",
            **per_class.record(names),
            **splits.record(),
            **frozen.record(),
        },
        curves={name: getattr(numbers, name) for name in ("top1", "top5", "mean_per_class")},
    )


@gin.configurable
def sgd(
    context: Context,
    *,
    pretrained: Callable[..., PretrainedWeights] = pretrained,
    training: Callable[..., ClassifierRun] = classifier_training,
) -> Result | None:
    """Follows the paper's protocol (appendix B.6): trains a linear layer on crops and flips.

    The encoder is frozen, its batch normalization included. The run has a model_dir of its own.

    Args:
      context: the command line's values.
      pretrained: where the weights come from; not from this job's model_dir.
      training: how the layer is trained; its defaults are the paper's, except for the batch.
    """

    def freeze(networks: Networks) -> None:
        networks["encoder"].trainable = False

    def task() -> ClassifierTask:
        weights = pretrained(model_dir=context.model_dir)
        weights.refuse_to_lie_in(context.model_dir)
        return ClassifierTask(
            job="linear_eval",
            protocol="a linear layer trained by SGD on random crops and flips, the encoder frozen "
            "and in inference mode; tested on the centre crop",
            augmentation=CROP_AND_FLIP,
            restore=weights.restore,
            freeze=freeze,
            settings={
                "preset": "sgd",
                "checkpoint": weights.record(),
                "layer": REPRESENTATION,
            },
        )

    return train_and_test(training(context, task))


@gin.configurable
def linear_eval(
    context: Context, *, preset: Callable[..., Result | None] = cached
) -> Result | None:
    """Runs linear evaluation, the field's measure of a representation (SimCLR section 2.2).

    Args:
      context: the command line's values.
      preset: @cached for features that are computed once, @sgd for the paper's protocol.

    Returns:
      The accuracies, which the command line writes into `results/linear_eval.json`; None where
      another host exports.
    """
    return preset(context)
