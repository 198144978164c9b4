"""`distill`: train a network by the answers of a fine-tuned one, with few labels or none."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import gin
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.source import Source
from simclr_tf.data.subset import labels_of_share
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import Result
from simclr_tf.export.loading import load_classifier, load_encoder, read_metadata
from simclr_tf.export.weights import UNTRAINED, PretrainedWeights
from simclr_tf.jobs.classifier import ClassifierRun, classifier_training, train_and_test
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP, ClassifierTask
from simclr_tf.methods.distillation import Distillation
from simclr_tf.models.networks import Networks
from simclr_tf.names import local


@gin.configurable
def distill(
    context: Context,
    *,
    teacher: str = "",
    training: Callable[..., ClassifierRun] = classifier_training,
    temperature: float = 1.0,
    label_weight: float = 0.0,
    label_share: float = 1.0,
) -> Result | None:
    """Distills a teacher into the recipe's encoder and a classifier (SimCLRv2 section 2).

    All training images are used, with and without labels. Evaluations accept the run's folder, as
    that of a pretraining run, and its SavedModel classifies.

    Args:
      context: the command line's values.
      teacher: the folder of a finished run of finetune, supervised or distill, or the SavedModel
        that it exported.
      training: how the student is trained.
      temperature: divisor of the logits of both: above 1 for softer probabilities.
      label_weight: weight of the cross-entropy with labels in the loss, whose other part is that
        with the teacher; 0 for none.
      label_share: share of each class's labels that is used, drawn by `train_classifier.seed` as by
        finetune.

    Returns:
      The accuracies, which the command line writes into `results/distill.json`; None where another
      host exports.
    """

    def task() -> ClassifierTask:
        model = Teacher.find(teacher, context.model_dir)
        return ClassifierTask(
            job="distill",
            protocol="cross-entropy with a teacher's probabilities from scratch, random crops and "
            "flips; tested on the centre crop",
            augmentation=CROP_AND_FLIP,
            images=functools.partial(model.images, label_share=label_share),
            settings={
                "checkpoint": PretrainedWeights(UNTRAINED, None, ()).record(),
                "teacher": model.path,
                "temperature": temperature,
                "label_weight": label_weight,
                "label_share": label_share,
            },
            zero_init=False,
            method=functools.partial(
                model.distillation, temperature=temperature, label_weight=label_weight
            ),
        )

    return train_and_test(training(context, task))


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A SavedModel that classifies.

    Attributes:
      path: its folder.
      image_size: side of the images that it was trained on.
      class_names: its classes, in the order of its logits.
    """

    path: str
    image_size: int
    class_names: tuple[str, ...]

    @classmethod
    def find(cls, path: str, model_dir: str) -> Teacher:
        """Finds the SavedModel of a run, or the one that `path` is.

        Raises:
          RequestError: there is none, it does not classify, or it is the student's own.
        """
        folder = local(path).rstrip("/")
        if not folder or folder == model_dir.rstrip("/"):
            raise RequestError(
                "distill.teacher must be the folder of another run than the student's, or a "
                f"SavedModel. Received: {path!r}. Fine-tune first, and bind distill.teacher."
            )
        folder = _saved_model_of(folder)
        metadata = read_metadata(folder)
        if not metadata["classes"]:
            raise RequestError(
                "The teacher must classify. Received: "
                f"{folder}, which holds {', '.join(metadata['networks'])}. Take a run of finetune "
                "or supervised."
            )
        return cls(folder, metadata["image_size"], tuple(metadata["classes"]))

    def images(self, source: Source, seed: int, *, label_share: float) -> Source:
        """Returns the images to train on, with a share of their labels.

        Raises:
          RequestError: they have other classes than the teacher.
        """
        if not source.class_names:
            return dataclasses.replace(source, class_names=self.class_names)
        if tuple(source.class_names) != self.class_names:
            raise RequestError(
                "The teacher must know the classes of the images, in the same order. Received: a "
                f"teacher of {_some(self.class_names)}, and images of {_some(source.class_names)}."
            )
        return labels_of_share(source, label_share, seed)

    def distillation(self, networks: Networks, views, **settings) -> Distillation:
        """Builds the method; called in the strategy's scope.

        Raises:
          RequestError: the teacher was trained on images of another size.
        """
        if views[0].size != self.image_size:
            raise RequestError(
                "The teacher must have been trained on images of data.image_size. Received: "
                f"{self.image_size} pixels, and data.image_size = {views[0].size}."
            )
        fixed = {
            "teacher": load_encoder(self.path, trainable=False),
            "teacher_classifier": load_classifier(self.path),
        }
        return Distillation(networks, views, fixed=Networks(fixed), **settings)


def _saved_model_of(path: str) -> str:
    """Returns the newest SavedModel of a run; `path` itself if that is one."""
    folder = os.path.join(path, "saved_model")
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")) or not tf.io.gfile.isdir(folder):
        return path
    steps = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    newest = max(map(int, filter(str.isdecimal, steps)), default=None)
    return path if newest is None else os.path.join(folder, str(newest))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
