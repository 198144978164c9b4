"""What contrastive losses share: projections of two views, over all replicas.

Legend: B examples per replica, R replicas, G = B*R, P projection.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument


def check_temperature(temperature: float) -> None:
    """Raises InvalidArgument unless the temperature is positive."""
    if not temperature > 0:
        raise InvalidArgument(f"temperature must be positive. Received: temperature={temperature}.")


def normalized(z: tf.Tensor) -> tf.Tensor:
    """Returns float32 rows of length 1; a row of zeros stays zero."""
    return tf.math.l2_normalize(tf.cast(z, tf.float32), axis=-1, epsilon=1e-12)


def rows(z: tf.Tensor, normalize: bool) -> tf.Tensor:
    """Returns float32 rows, of length 1 if `normalize`."""
    return normalized(z) if normalize else tf.cast(z, tf.float32)


def two_views(z: tf.Tensor, normalize: bool = True) -> tf.Tensor:
    """Returns the projections of two views of each example, float32, of length 1 if `normalize`.

    Args:
        z: [2B, P] of any float dtype, view 1 of all local examples, then view 2.
        normalize: Whether the similarity of projections is their cosine, else their product.

    Raises:
        ValueError: If the shape is not [2B, P] and static, or the global batch is one.
    """
    z = rows(z, normalize)
    if z.shape.rank != 2 or None in z.shape or z.shape[0] % 2:
        raise ValueError(
            "z must be [2B, P] with a static shape: view 1 of all examples, then view 2. "
            f"Received: shape={tuple(z.shape)}."
        )
    if z.shape[0] * collectives.num_replicas() < 4:
        raise ValueError(
            "A contrastive loss needs a global batch of at least 2 examples, or there are no "
            f"negatives. Received: shape={tuple(z.shape)}, replicas={collectives.num_replicas()}."
        )
    return z


def gathered(z: tf.Tensor) -> tf.Tensor:
    """Gathers [2B, P] to [2G, P]: view 1 of all examples on all replicas, then view 2."""
    views = collectives.all_gather(tf.reshape(z, [2, z.shape[0] // 2, -1]), axis=1)
    return tf.reshape(views, [-1, z.shape[1]])


def own_columns(batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where `gathered` puts view 1 and view 2 of the B local examples, int32 [B] each."""
    view_1 = tf.range(batch) + collectives.replica_id() * batch
    return view_1, view_1 + batch * collectives.num_replicas()


def image_numbers(images: tf.Tensor | None, batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the numbers of the images of the B local examples, and of all G, int32.

    Args:
        images: [B] int32, or None to give each example a number of its own.
        batch: B.
    """
    if images is not None:
        return images, collectives.gather_numbers(images)
    return own_columns(batch)[0], tf.range(batch * collectives.num_replicas())


def spread(everyone: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation per dimension of normalized rows [N, P], times sqrt(P)."""
    deviations = tf.math.reduce_std(everyone, axis=0)
    return tf.reduce_mean(deviations) * math.sqrt(everyone.shape[1])
