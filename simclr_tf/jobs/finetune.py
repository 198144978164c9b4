"""`finetune`: train the whole pretrained network with labels, all of them or a few."""

from __future__ import annotations

import re
from collections.abc import Callable

import gin

from simclr_tf.context import Context
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.features import REPRESENTATION
from simclr_tf.evaluation.result import Result
from simclr_tf.export.weights import PretrainedWeights, pretrained
from simclr_tf.jobs.classifier import ClassifierRun, classifier_training, train_and_test
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP, ClassifierTask, share_of_images
from simclr_tf.models.classifier import freeze_groups


@gin.configurable
def finetune(
    context: Context,
    *,
    pretrained: Callable[..., PretrainedWeights] = pretrained,
    training: Callable[..., ClassifierRun] = classifier_training,
    label_share: float = 1.0,
    from_layer: str = REPRESENTATION,
    frozen_groups: int = -1,
) -> Result | None:
    """Fine-tunes with cross-entropy from a classifier of zeros (SimCLR B.5; SimCLRv2 section 2).

    The run has a model_dir of its own, with checkpoints and a SavedModel that classifies.

    Args:
      context: the command line's values.
      pretrained: where the weights come from; not from this job's model_dir.
      training: how the classifier is trained.
      label_share: share of each class's labels, drawn by `train_classifier.seed`.
      from_layer: "representation" (h), or "projection_k": the head's first k layers are kept and
        fine-tuned too.
      frozen_groups: -1 trains everything, 0 freezes the stem, k also block groups 1 to k, with
        their batch normalization; 4 freezes the encoder.

    Returns:
      The accuracies, which the command line writes into `results/finetune.json`; None where another
      host exports.
    """

    def task() -> ClassifierTask:
        weights = pretrained(model_dir=context.model_dir)
        weights.refuse_to_lie_in(context.model_dir)
        return ClassifierTask(
            job="finetune",
            protocol="cross-entropy on all layers that are not frozen, random crops and flips; "
            "tested on the centre crop",
            augmentation=CROP_AND_FLIP,
            restore=weights.restore,
            freeze=lambda networks: freeze_groups(networks["encoder"], frozen_groups),
            head_layers=_head_layers(from_layer),
            images=share_of_images(label_share),
            settings={
                "checkpoint": weights.record(),
                "label_share": label_share,
                "layer": from_layer,
                "frozen_groups": frozen_groups,
            },
        )

    return train_and_test(training(context, task))


def _head_layers(layer: str) -> int:
    if layer == REPRESENTATION:
        return 0
    number = re.fullmatch(r"projection_([1-9]\d*)", layer)
    if not number:
        raise RequestError(
            "finetune.from_layer must be 'representation' or 'projection_k' with k from 1 on. "
            f"Received: {layer!r}."
        )
    return int(number[1])
