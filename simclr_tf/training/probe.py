"""The online probe, a linear classifier that watches the representation while it is trained."""

from __future__ import annotations

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import linear_probe
from simclr_tf.models.networks import Networks, representation_dim
from simclr_tf.objectives.cross_entropy import cross_entropies

PROBE_METRICS = (
    Metric("probe_loss"),
    Metric("probe_accuracy", "online probe, train top-1"),
)
NO_PROBE = Networks({})


def online_probe(num_classes: int | None, encoder: keras.Model) -> Networks:
    """Builds the probe of an encoder, a network "probe"; returns none without classes."""
    if num_classes is None:
        return NO_PROBE
    model = linear_probe(num_classes, input_dim=representation_dim(encoder))
    return Networks({"probe": model}, classifiers=("probe",))


def probe_logits(probe: Networks, representation: tf.Tensor) -> tf.Tensor | None:
    """Returns the probe's logits, float32 [V*B, classes]; None without a probe.

    The probe sees the representation behind a stop_gradient: it does not affect the encoder.
    """
    if not probe:
        return None
    return probe["probe"](tf.stop_gradient(representation), training=True)


def probe_numbers(logits: tf.Tensor | None, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns this replica's shares of the probe's mean cross-entropy and accuracy over all views.

    An image whose label is unknown (-1) counts as a loss of zero and as misclassified.

    Args:
      logits: [V*B, classes] float32, view after view; None without a probe.
      labels: [B] int32.

    Returns:
      The `PROBE_METRICS`, float32 scalars; nothing without a probe.
    """
    if logits is None:
        return {}
    labels = tf.concat([labels] * (logits.shape[0] // labels.shape[0]), axis=0)
    rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
    losses = cross_entropies(logits, labels)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    accuracy = tf.reduce_sum(tf.cast(found == labels, tf.float32)) / rows
    return {"probe_loss": tf.reduce_sum(losses) / rows, "probe_accuracy": accuracy}
