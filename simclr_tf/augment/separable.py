"""Linear maps that act on rows and columns separately: resampling and blurring are two of them."""

from __future__ import annotations

import tensorflow as tf


def apply(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Maps the rows and the columns of each image by matrices of its own.

    Two batched matrix products, so that images of one batch may have different maps. An
    accelerator that multiplies float32 matrices in lower precision (TPU: bfloat16) does so here.

    Args:
        images: float32 [N, H, W, C].
        rows: float32 [N, P, H].
        columns: float32 [N, Q, W].

    Returns:
        float32 [N, P, Q, C].
    """
    planes = tf.transpose(images, [0, 3, 1, 2])
    mapped = tf.matmul(tf.matmul(rows[:, None], planes), columns[:, None], transpose_b=True)
    return tf.transpose(mapped, [0, 2, 3, 1])
