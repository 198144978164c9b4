"""Linear maps that act on rows and columns separately, such as resampling and blurring."""

from __future__ import annotations

import tensorflow as tf


def apply(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Maps the rows and the columns of each image by that image's matrices.

    Two batched matrix products let images of one batch have different maps. An accelerator that
    multiplies float32 matrices in lower precision (TPU: bfloat16) does so here too.

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
