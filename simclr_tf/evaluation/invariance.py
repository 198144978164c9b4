"""Predicts the transformation of an image, from the representation h and from z.

Chen et al. 2020, https://arxiv.org/abs/2002.05709, table 3: one small network is trained on h, and
another on z = g(h), to predict the transformation. The projection head g loses what the
contrastive loss makes it invariant to; h keeps more of it.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment.ablation_ops import gaussian_noise, sobel
from simclr_tf.augment.color import grayscale
from simclr_tf.errors import InvalidArgument
from simclr_tf.evaluation.features import Transform

PROTOCOL = (
    "SimCLR table 3: a network with one hidden layer of 512 units (Adam, stopped early on a tenth "
    "of its training part) predicts the transformation from standardized frozen features; each "
    "image is seen in one version, drawn by its number with equal probabilities"
)
# With fewer images, the held-out tenth lacks some kind of image.
MIN_TRAIN = 100
_LABEL_OP, _NOISE_OP = 0, 1


@dataclasses.dataclass(frozen=True)
class Task:
    """A property of an image's transformation to predict.

    Attributes:
      name: includes the parameters of the change, since it identifies kept features.
      kinds: the meaning of each label.
      versions: (images float32 [b, S, S, 3] in [0, 1], keys uint32 [b, 2]) -> the images in each
        of these kinds.
    """

    name: str
    kinds: tuple[str, ...]
    versions: Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]

    @property
    def chance(self) -> float:
        return 1 / len(self.kinds)


def _rotations(images: tf.Tensor, keys: tf.Tensor) -> list[tf.Tensor]:
    del keys
    return [images, *(tf.image.rot90(images, turns) for turns in (1, 2, 3))]


def _with_op(op: Callable[..., tf.Tensor], images: tf.Tensor, keys: tf.Tensor) -> list[tf.Tensor]:
    return [images, op(images, keys, op=_NOISE_OP, probability=1.0)]


# The paper says "corrupted"; its caption names Gaussian noise without its strength.
TASKS = (
    Task("colour or grayscale", ("colour", "grayscale"), functools.partial(_with_op, grayscale)),
    Task("rotation", ("0", "90", "180", "270"), _rotations),
    Task(
        "original or corrupted (noise 0.1)",
        ("original", "corrupted"),
        functools.partial(_with_op, gaussian_noise),
    ),
    Task(
        "original or Sobel filtered", ("original", "filtered"), functools.partial(_with_op, sobel)
    ),
)


def transform(task: Task, seed: int) -> Transform:
    """Transforms each image into the version given by `labels`."""

    def apply(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        keys = keys_lib.example_keys(seed, 0, index, TASKS.index(task))
        versions = tf.stack(task.versions(images, keys), axis=1)
        return tf.gather(versions, _draw(task, keys), batch_dims=1)

    return Transform(f"{task.name}, seed {seed}", apply)


def labels(task: Task, seed: int, index: np.ndarray) -> np.ndarray:
    """Returns the kind in which each image is shown, from its number and the seed alone.

    Args:
      task: gives the kinds.
      seed: seed of the draw.
      index: int64 [N].

    Returns:
      int32 [N].
    """
    keys = keys_lib.example_keys(seed, 0, tf.constant(index), TASKS.index(task))
    return _draw(task, keys).numpy()


def accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
) -> float:
    """Returns the share of test examples whose label a small network predicts.

    Args:
      train: float32 [N, D], N at least MIN_TRAIN.
      train_labels: [N].
      test: float32 [M, D].
      test_labels: [M].
      seed: seed of the network's weights, the order of examples and the early-stopping part.

    Raises:
      ValueError: there are too few training examples.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if len(train) < MIN_TRAIN:
        raise InvalidArgument(
            f"At least {MIN_TRAIN} images are needed to train on. Received: {len(train)}."
        )
    mean, std = train.mean(0), train.std(0) + 1e-6
    network = MLPClassifier(
        (512,), early_stopping=True, n_iter_no_change=5, max_iter=100, random_state=seed
    )
    with warnings.catch_warnings():
        # If 100 epochs do not converge, the best epoch on the held-out tenth is used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((train - mean) / std, train_labels)
    return float(network.score((test - mean) / std, test_labels))


def _draw(task: Task, keys: tf.Tensor) -> tf.Tensor:
    return keys_lib.integers(keys_lib.uniform(keys, _LABEL_OP, 1)[:, 0], len(task.kinds))
