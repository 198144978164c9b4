"""A memory bank: a direction for each image of the data, which its embeddings move.

Wu et al., https://arxiv.org/abs/1805.01978; Misra and van der Maaten, PIRL,
https://arxiv.org/abs/1912.01991.

Legend: n images of the data, P projection, G examples of the global batch, K negatives.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.objectives.projections import normalized


def random_directions(
    name: str, rows: int, dim: int, initializer: keras.initializers.Initializer
) -> keras.Variable:
    """Returns a variable of rows of length 1, float32 [rows, dim], by the seed of the scope.

    Args:
        name: Of the variable.
        rows: How many.
        dim: P.
        initializer: Draws the rows before they are normalized.
    """
    return keras.Variable(
        lambda shape, dtype: normalized(initializer(shape, dtype)),
        shape=(rows, dim),
        dtype="float32",
        trainable=False,
        name=name,
    )


def memory_bank(images: int, dim: int) -> keras.Variable:
    """Returns n random rows of length 1, float32 [n, P].

    As in the authors' code, they are uniform in a cube before they are normalized.
    """
    return random_directions("bank", images, dim, keras.initializers.RandomUniform(-1.0, 1.0))


def moved(bank: tf.Tensor, index: tf.Tensor, rows: tf.Tensor, momentum: float) -> tf.Tensor:
    """Moves the rows of a batch's images towards their embeddings, and normalizes them.

    An image that a batch has twice, as at the seam of two epochs, moves towards its first embedding
    there; each of its writes has the same value, so that their order does not matter.

    Args:
        bank: float32 [n, P], rows of length 1.
        index: int32 [G], the images' rows.
        rows: float32 [G, P], their embeddings, of length 1.
        momentum: Share of itself that a row keeps.

    Returns:
        float32 [n, P].
    """
    places = tf.range(index.shape[0])
    same = index[:, tf.newaxis] == index[tf.newaxis, :]
    first = tf.reduce_min(tf.where(same, places[tf.newaxis, :], places[-1]), axis=1)
    towards = tf.gather(rows, first)
    new = normalized(momentum * tf.gather(bank, index) + (1.0 - momentum) * towards)
    return tf.tensor_scatter_nd_update(bank, index[:, tf.newaxis], new)


def rows_to_compare(
    index: tf.Tensor, step: tf.Tensor, *, images: int, negatives: int, head: int
) -> tf.Tensor:
    """Returns each image's own row, and K rows drawn from all n with replacement.

    The draws of an image depend on its row, the step and the head, so that they are the same on any
    number of replicas, and when a run goes on.

    Args:
        index: int32 [B], the images' rows.
        step: Number of steps before, an int32 scalar.
        images: n.
        negatives: K.
        head: Number of the network whose output is compared.

    Returns:
        int32 [B, 1 + K], the own row first.
    """
    keys = random_keys.example_keys(0, step, index, head)
    drawn = random_keys.below(keys, 0, negatives, images)
    return tf.concat([index[:, tf.newaxis], drawn], axis=1)
