"""Augmentation on a host's CPU: compiled code processes one view at a time, within the cache.

An accelerator runs each op on a whole batch. On a CPU the temporaries of a batch of photos
overflow the caches, and every example pays for ops that only others drew; one view at a time is
several times as fast. XLA compiles each function once per process and argument shape. Without XLA
for the host, as in TensorFlow's wheel for TPUs, the same ops run one by one.

Shapes: V views of an image, S side of a view.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.crop import from_levels
from simclr_tf.augment.policy import Augmentation
from simclr_tf.distribute.xla import host_compiles


@functools.cache
def box_sampler(
    augmentation: Augmentation, num_views: int, first_view: int = 0
) -> Callable[..., tf.Tensor]:
    """Returns a function, compiled where the host can, that draws the boxes of an image's views.

    Args:
        augmentation: of these views.
        num_views: V, the number of views.
        first_view: the number of the first view.

    Returns:
        (seed int64, epoch int64, index int64, height int32, width int32) -> int32 [V, 4], equal to
        `Augmentation.sample_boxes` with the keys of the image's views.
    """

    @tf.function(jit_compile=host_compiles(), autograph=False)
    def boxes(
        seed: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor, height: tf.Tensor, width: tf.Tensor
    ) -> tf.Tensor:
        views = tf.range(first_view, first_view + num_views)
        keys = random_keys.example_keys(seed, epoch, index, views)
        heights, widths = tf.repeat(height, num_views), tf.repeat(width, num_views)
        boxes = augmentation.sample_boxes(keys, heights, widths)
        return tf.ensure_shape(boxes, [num_views, 4])

    return boxes


@functools.cache
def view_augmenter(augmentation: Augmentation) -> Callable[..., tf.Tensor]:
    """Returns a function, compiled where the host can, that applies the policy to one view.

    It is not compiled if the policy has an op that XLA does not compile, such as an addons op.

    Returns:
        (view float32 [S, S, 3] in the levels of `crop.from_levels`, seed int64, epoch int64,
        index int64, number of the view int32) -> float32 [S, S, 3] in [0, 1], equal to the
        augmentation with the view's key.
    """

    @tf.function(jit_compile=augmentation.compiles and host_compiles(), autograph=False)
    def augment(
        view: tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        key = random_keys.example_keys(seed, epoch, index, number)
        return augmentation(from_levels(view)[None], key[None])[0]

    return augment
