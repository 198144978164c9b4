"""The cross entropy of NT-Xent, without holding all [2B, 2G] similarities in memory at once.

Legend: B examples per replica, G examples on all replicas, P projection.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import tensorflow as tf

# Bytes of a block's float32 similarities: more than a replica of the paper's slices has in all. A
# block also needs temporaries of this size.
_BLOCK_BYTES = 2**24
_MASKED = 1e9


class Sums(NamedTuple):
    """The result of `contrast`, float32 scalars: sums over the anchors.

    Attributes:
        loss: sum of cross entropies.
        top1: number of anchors whose positive is the most similar.
        top5: number of anchors whose positive is among the five most similar.
        negative: sum of each anchor's mean similarity to its negatives.
    """

    loss: tf.Tensor
    top1: tf.Tensor
    top5: tf.Tensor
    negative: tf.Tensor


def anchors_per_block(anchors: int, candidates: int, block_size: int | None) -> int:
    """Returns the number of anchors in a block: `block_size`, or as many as 16 MiB will hold."""
    if block_size is None:
        block_size = max(_BLOCK_BYTES // (4 * candidates), 1)
    return min(block_size, anchors)


def contrast(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    anchor_image: tf.Tensor,
    candidate_image: tf.Tensor,
    positive_column: tf.Tensor,
    temperature: float,
    block_size: int | None,
    decoupled: bool = False,
) -> Sums:
    """Compares every anchor's positive with its negatives: the views of other images.

    The anchor itself is a view of its image, so it is none of them.

    One block of anchors at a time is compared with all candidates. As the sum of the losses is a
    scalar, its gradient is known up to a factor as soon as the loss is. So each block stores its
    gradient before its similarities are deleted, and the backward pass computes nothing again.
    Beside the gradients (as large as the arguments) memory holds one block.

    Only the loss has a gradient, with respect to `anchors` and `candidates`.

    Args:
        anchors: [2B, P] float32, normalized.
        candidates: [2G, P] float32, normalized.
        anchor_image: [2B] int32, the number of the anchor's image, from 0 on.
        candidate_image: [2G] int32, the same of the candidates.
        positive_column: [2B] int32, the candidate that is the anchor's other view.
        temperature: divisor of the similarities.
        block_size: anchors compared at a time, or None for as many as 16 MiB will hold. It need
            not divide 2B.
        decoupled: whether the positive is left out of the denominator.
    """
    size = anchors_per_block(anchors.shape[0], candidates.shape[0], block_size)
    compare = functools.partial(
        _compare,
        candidate_image=candidate_image,
        temperature=temperature,
        cross_entropy=_decoupled if decoupled else _coupled,
    )

    @tf.custom_gradient
    def run(anchors, candidates):
        blocks = -(-anchors.shape[0] // size)
        if blocks == 1:
            found = compare(anchors, anchor_image, positive_column, candidates)
        else:
            found = _compare_in_turn(
                compare, anchors, anchor_image, positive_column, candidates, blocks, size
            )
        sums, d_anchors, d_candidates = found

        def gradient(d_sums):
            return d_sums[0] * d_anchors, d_sums[0] * d_candidates

        return sums, gradient

    return Sums(*tf.unstack(run(anchors, candidates)))


def _compare_in_turn(
    compare, anchors, anchor_image, positive_column, candidates, blocks, size
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns what `compare` returns, from one block of `size` anchors after the other.

    Anchors of length 0 and without an image pad the last block, and count for nothing.
    """
    missing = blocks * size - anchors.shape[0]
    rows = tf.reshape(tf.pad(anchors, [[0, missing], [0, 0]]), [blocks, size, -1])
    images = tf.reshape(tf.pad(anchor_image, [[0, missing]], constant_values=-1), [blocks, size])
    positives = tf.reshape(tf.pad(positive_column, [[0, missing]]), [blocks, size])

    def add_block(i, sums, d_rows, d_candidates):
        block_sums, d_block, d_shared = compare(
            tf.gather(rows, i), tf.gather(images, i), tf.gather(positives, i), candidates
        )
        d_rows = tf.tensor_scatter_nd_update(d_rows, [[i]], d_block[tf.newaxis])
        return i + 1, sums + block_sums, d_rows, d_candidates + d_shared

    _, sums, d_rows, d_candidates = tf.while_loop(
        lambda i, *_: i < blocks,
        add_block,
        (
            tf.constant(0),
            tf.zeros([len(Sums._fields)]),
            tf.zeros_like(rows),
            tf.zeros_like(candidates),
        ),
        parallel_iterations=1,  # otherwise several blocks would be in memory
        maximum_iterations=blocks,
    )
    d_anchors = tf.reshape(d_rows, [blocks * size, -1])[: anchors.shape[0]]
    return sums, d_anchors, d_candidates


def _compare(
    anchors,
    anchor_image,
    positive_column,
    candidates,
    *,
    candidate_image,
    temperature,
    cross_entropy,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the sums [4], and the gradient of the first with respect to anchors and candidates.

    An anchor whose image is -1 is padding.
    """
    logits = tf.matmul(anchors / temperature, candidates, transpose_b=True)
    negative = anchor_image[:, tf.newaxis] != candidate_image
    negatives = tf.reduce_sum(tf.cast(negative, tf.float32), axis=1)
    similarity = temperature * tf.reduce_sum(tf.where(negative, logits, 0.0), axis=1)
    positive = positive_column[:, tf.newaxis] == tf.range(candidates.shape[0])
    logits = tf.where(negative | positive, logits, -_MASKED)
    losses, d_logits = cross_entropy(logits, positive, positive_column)
    positive_logit = tf.gather(logits, positive_column, axis=1, batch_dims=1)
    # The positive is never ahead of itself, hence the 1: rank 0 is the most similar.
    ahead = tf.cast(logits >= positive_logit[:, tf.newaxis], tf.int32)
    rank = tf.reduce_sum(ahead, axis=1) - 1
    there = tf.cast(anchor_image >= 0, tf.float32)
    sums = [
        losses,
        tf.cast(rank < 1, tf.float32),
        tf.cast(rank < 5, tf.float32),
        tf.math.divide_no_nan(similarity, negatives),
    ]
    d_anchors = tf.matmul(d_logits, candidates) / temperature
    d_candidates = tf.matmul(d_logits, anchors / temperature, transpose_a=True)
    return tf.linalg.matvec(tf.stack(sums), there), d_anchors, d_candidates


def _coupled(logits, positive, positive_column) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the cross entropies of positive and negatives [n], and their gradient [n, 2G]."""
    del positive
    return tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=positive_column)


def _decoupled(logits, positive, positive_column) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the same without the positive in the denominator; 0 for an anchor without negatives.

    Yeh et al., Decoupled Contrastive Learning, https://arxiv.org/abs/2110.06848, eq. 6.
    """
    negatives = tf.where(positive, -_MASKED, logits)
    largest = tf.reduce_max(negatives, axis=1, keepdims=True)
    exponentials = tf.exp(negatives - largest)
    sums = tf.reduce_sum(exponentials, axis=1, keepdims=True)
    positive_logit = tf.gather(logits, positive_column, axis=1, batch_dims=1)
    losses = (tf.math.log(sums) + largest)[:, 0] - positive_logit
    d_logits = exponentials / sums - tf.cast(positive, tf.float32)
    found = largest > -_MASKED / 2
    return tf.where(found[:, 0], losses, 0.0), tf.where(found, d_logits, 0.0)
