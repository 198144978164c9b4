"""Turns images upright by their EXIF orientation, and boxes of the upright image back."""

from __future__ import annotations

import tensorflow as tf


def shape(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns height and width of the upright image, int32 [2], from those that are stored."""
    return tf.where(_transposed(orientation), stored[::-1], stored)


def stored_boxes(boxes: tf.Tensor, stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Maps boxes of the upright image into the stored one.

    Args:
      boxes: int32 [V, 4], rows (y, x, height, width).
      stored: height and width of the stored image, int32 [2].
      orientation: int32 scalar, 1 to 8.
    """

    def mapped() -> tf.Tensor:
        height, width = tf.unstack(shape(stored, orientation))
        y, x, h, w = tf.unstack(boxes, axis=1)
        y = tf.where(_upside_down(orientation), height - y - h, y)
        x = tf.where(_mirrored(orientation), width - x - w, x)
        exchanged = _transposed(orientation)
        return tf.where(exchanged, tf.stack([x, y, w, h], 1), tf.stack([y, x, h, w], 1))

    return tf.cond(orientation > 1, mapped, lambda: boxes)


def pixels(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored image [H, W, C] upright."""

    def turned() -> tf.Tensor:
        axes = tf.where(_transposed(orientation), [1, 0, 2], [0, 1, 2])
        reversed_ = tf.boolean_mask([0, 1], [_upside_down(orientation), _mirrored(orientation)])
        return tf.reverse(tf.transpose(image, axes), reversed_)

    return tf.cond(orientation > 1, turned, lambda: image)


def _transposed(orientation: tf.Tensor) -> tf.Tensor:
    return orientation >= 5


def _mirrored(orientation: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(orientation == [2, 3, 6, 7])


def _upside_down(orientation: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(orientation == [3, 4, 7, 8])
