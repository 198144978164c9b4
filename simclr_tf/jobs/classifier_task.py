"""What a job asks of the training of a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from simclr_tf.augment.policy import Augmentation, parse_policy
from simclr_tf.data.source import Source
from simclr_tf.data.subset import class_balanced
from simclr_tf.evaluation.frozen_encoder import labelled
from simclr_tf.methods.supervised import Supervised
from simclr_tf.models.networks import Networks

# SimCLR appendix B.5, B.6: random crops and flips, no colour distortion, no blur.
CROP_AND_FLIP = Augmentation(parse_policy((("flip", 0.5),)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierTask:
    """A job's request to `train_classifier`.

    Attributes:
      job: the job that publishes the result.
      protocol: in words, for the result.
      augmentation: augmentation of the training images.
      restore: fills the recipe's encoder and, if needed, projection head.
      freeze: sets which variables do not train.
      head_layers: how many layers of the projection head stay below the classifier.
      images: the training split and the run's seed -> the images to train on.
      settings: other values that must not change on resume; also written into the result.
      zero_init: whether the classifier starts from zeros.
      method: builds the method from networks, views and `classifier_decay`.
    """

    job: str
    protocol: str
    augmentation: Augmentation
    restore: Callable[[Mapping[str, keras.Model]], None] = lambda networks: None
    freeze: Callable[[Networks], None] = lambda networks: None
    head_layers: int = 0
    images: Callable[[Source, int], Source] = lambda source, seed: labelled(source)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    zero_init: bool = True
    method: Callable[..., Supervised] = Supervised


def share_of_images(share: float) -> Callable[[Source, int], Source]:
    """Returns, for `ClassifierTask.images`, a share of each class's images."""
    return lambda source, seed: class_balanced(labelled(source), share, seed)
