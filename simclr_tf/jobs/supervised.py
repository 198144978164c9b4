"""`supervised`: trains the same encoder from scratch with labels, the baseline of every table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gin

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.context import Context
from simclr_tf.evaluation.result import Result
from simclr_tf.export.weights import UNTRAINED, PretrainedWeights
from simclr_tf.jobs.classifier import ClassifierRun, classifier_training, train_and_test
from simclr_tf.jobs.classifier_task import ClassifierTask, share_of_images


@gin.configurable
def supervised(
    context: Context,
    *,
    training: Callable[..., ClassifierRun] = classifier_training,
    augmentation: Callable[[], Augmentation] = augmentation,
    label_share: float = 1.0,
) -> Result | None:
    """Trains encoder and classifier with cross-entropy (SimCLR appendix B.3).

    Every evaluation accepts the run's folder, as that of a pretraining run.

    Args:
      context: the command line's values.
      training: how they are trained.
      augmentation: the recipe's; blur is left out.
      label_share: share of each class's labels.

    Returns:
      The accuracies, which the command line writes into `results/supervised.json`; None where
      another host exports.
    """

    def task() -> ClassifierTask:
        whole = augmentation()
        kept = tuple(op for op in whole.policy if op.name != "blur")
        return ClassifierTask(
            job="supervised",
            protocol="cross-entropy from scratch with the pretraining's augmentation minus blur; "
            "tested on the centre crop",
            augmentation=dataclasses.replace(whole, policy=kept),
            images=share_of_images(label_share),
            settings={
                "label_share": label_share,
                "checkpoint": PretrainedWeights(UNTRAINED, None, ()).record(),
            },
            zero_init=False,
        )

    return train_and_test(training(context, task))
