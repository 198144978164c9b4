"""Which transformation an image went through: what the representation h tells of it, and what z.

Chen et al. 2020, https://arxiv.org/abs/2002.05709, table 3: a small network is trained on h, and
another one on z = g(h), to predict the transformation. The projection head g loses what the
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
# Fewer leave no tenth on which every kind of image occurs.
MIN_TRAIN = 100
_LABEL_OP, _NOISE_OP = 0, 1


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to predict about how an image was changed.

    Attributes:
      name: with the parameters of the change, since kept features are known by it.
      kinds: what each label means.
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


# The paper says "corrupted"; its caption names Gaussian noise, of a strength it does not give.
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
    """Shows each image in the version that `labels` says."""

    def apply(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        keys = keys_lib.example_keys(seed, 0, index, TASKS.index(task))
        versions = tf.stack(task.versions(images, keys), axis=1)
        return tf.gather(versions, _draw(task, keys), batch_dims=1)

    return Transform(f"{task.name}, seed {seed}", apply)


def labels(task: Task, seed: int, index: np.ndarray) -> np.ndarray:
    """The kind that each image is shown as, a function of its number and the seed alone.

    Args:
      task: whose kinds.
      seed: of the draw.
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
    """The share of test examples whose label a small network predicts.

    Args:
      train: float32 [N, D], N at least MIN_TRAIN.
      train_labels: [N].
      test: float32 [M, D].
      test_labels: [M].
      seed: of the network's weights, the order of examples and the part that stops it.

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
        # After 100 epochs the best one on the held-out tenth is taken as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((train - mean) / std, train_labels)
    return float(network.score((test - mean) / std, test_labels))


def _draw(task: Task, keys: tf.Tensor) -> tf.Tensor:
    return keys_lib.integers(keys_lib.uniform(keys, _LABEL_OP, 1)[:, 0], len(task.kinds))
