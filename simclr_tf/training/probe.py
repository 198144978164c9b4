"""The online probe, a linear classifier that watches the representation while it is trained."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.training.classification import cross_entropies

PROBE_METRICS = ("probe_loss", "probe_accuracy")


def probe_numbers(logits: tf.Tensor | None, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """This replica's shares of the probe's mean cross-entropy and accuracy over both views.

    An image whose label is unknown (-1) counts as a loss of zero and as not recognized.

    Args:
      logits: [2B, classes] float32, view 1 of all examples, then view 2; None without a probe.
      labels: [B] int32.

    Returns:
      The `PROBE_METRICS`, float32 scalars; nothing without a probe.
    """
    if logits is None:
        return {}
    labels = tf.concat([labels, labels], axis=0)
    rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
    losses = cross_entropies(logits, labels)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    accuracy = tf.reduce_sum(tf.cast(found == labels, tf.float32)) / rows
    return {"probe_loss": tf.reduce_sum(losses) / rows, "probe_accuracy": accuracy}
