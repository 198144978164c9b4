"""Training a classifier on an encoder: the step of a replica, and how its numbers are counted."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.models.simclr import SimCLR
from simclr_tf.training.gradients import take_summed
from simclr_tf.training.loss_scale import apply_scaled, loss_scale, scale_metrics

METRICS = ("cross_entropy", "top1", "top5")


def metric_names(optimizer: keras.optimizers.Optimizer) -> tuple[str, ...]:
    """The names of a step's numbers, in their order."""
    return METRICS + scale_metrics(optimizer)


def make_classification_step(
    simclr: SimCLR, optimizer: keras.optimizers.Optimizer
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Builds the replica function that trains all variables of `simclr` that are trainable.

    Layers that are not trainable run in inference mode, batch normalization included. An image
    whose label is unknown (-1) counts as a loss of zero and as not recognized.

    Args:
      simclr: encoder, the layers of the projection head that are kept, and the classifier as probe.
      optimizer: built for `simclr.trainable_variables`; from now on it sums no gradients itself.

    Returns:
      Batch {'images': [B, H, W, 3], 'labels': [B]} -> float32 [len(metric_names(optimizer))], this
      step's numbers: means over the global batch, equal on every replica.
    """
    take_summed(optimizer)

    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        labels = batch["labels"]
        rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
        with tf.GradientTape() as tape:
            logits = class_logits(simclr, batch["images"], training=True)
            loss = tf.reduce_sum(cross_entropies(logits, labels)) / rows
            scaled = loss * loss_scale(optimizer)
        variables = simclr.trainable_variables
        shares = tape.gradient(scaled, [v.value for v in variables])
        applied = apply_scaled(optimizer, collectives.all_reduce_sum(shares), variables)
        ranks = label_ranks(logits, labels)
        found = [tf.reduce_sum(tf.cast(ranks < k, tf.float32)) / rows for k in (1, 5)]
        numbers = collectives.all_reduce_sum(tf.stack([loss, *found]))
        return tf.concat([numbers, [applied[name] for name in scale_metrics(optimizer)]], axis=0)

    return step


def class_logits(simclr: SimCLR, images: tf.Tensor, training: bool) -> tf.Tensor:
    """Logits [B, classes], float32, of the classifier on the last of the head's layers."""
    representation = simclr.encoder(images, training=training)["final_avg_pool"]
    projections = simclr.projection_head(representation, training=training)
    return simclr.probe(projections[f"projection_{len(projections) - 1}"], training=training)


def cross_entropies(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy of every row, float32 [B]; 0 where the label is unknown (-1)."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(labels, 0), logits=logits
    )
    return tf.where(labels >= 0, losses, 0.0)


def label_ranks(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """How many classes stand before each row's label, int32 [B]: below k means top-k.

    Of equal logits the first class stands first, so a classifier that says nothing finds nothing.
    An unknown label (-1) stands behind all classes.
    """
    classes = tf.range(logits.shape[-1], dtype=labels.dtype)
    own = tf.reduce_sum(tf.where(classes == labels[:, tf.newaxis], logits, 0.0), -1, keepdims=True)
    before = (logits > own) | ((logits == own) & (classes < labels[:, tf.newaxis]))
    ranks = tf.reduce_sum(tf.cast(before, tf.int32), axis=-1)
    return tf.where(labels >= 0, ranks, logits.shape[-1])


def classification_words(numbers: dict[str, float]) -> str:
    """What a progress line says of training a classifier."""
    return (
        f"cross-entropy {numbers['cross_entropy']:.3f} (chance {numbers['loss_chance']:.2f}), "
        f"top-1 {numbers['top1']:.1%}"
    )
