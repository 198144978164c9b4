"""Cross-entropy and ranks of labels; labels may be unknown."""

from __future__ import annotations

import tensorflow as tf


def cross_entropies(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes every row's softmax cross-entropy, float32 [B]; 0 for an unknown label (-1)."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(labels, 0), logits=logits
    )
    return tf.where(labels >= 0, losses, 0.0)


def label_ranks(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Counts the classes ranked before each row's label, int32 [B]: below k means top-k.

    Equal logits rank by class number, so a classifier with constant logits gets no credit. An
    unknown label (-1) has the largest int32, so that no k finds it, however few the classes are.
    """
    classes = tf.range(logits.shape[-1], dtype=labels.dtype)
    own = tf.reduce_sum(tf.where(classes == labels[:, tf.newaxis], logits, 0.0), -1, keepdims=True)
    before = (logits > own) | ((logits == own) & (classes < labels[:, tf.newaxis]))
    ranks = tf.reduce_sum(tf.cast(before, tf.int32), axis=-1)
    return tf.where(labels >= 0, ranks, tf.int32.max)
