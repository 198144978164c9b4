"""Representations of a whole split, by a frozen encoder."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import plain_images
from simclr_tf.data.source import Source


def representations(
    encoder: keras.Model, source: Source, image_size: int, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Representations h of every image that decodes, each once, in the source's order.

    The encoder runs in inference mode: its batch normalization uses its moving averages, and
    nothing of it changes.

    Returns:
      (float32 [N, D], labels int64 [N], -1 where unknown).
    """

    @tf.function(input_signature=[tf.TensorSpec([None, image_size, image_size, 3])])
    def embed(images: tf.Tensor) -> tf.Tensor:
        return encoder(images, training=False)["final_avg_pool"]

    bad_images = BadImages(source)
    features, labels = [], []
    for images, batch_labels in plain_images(source, image_size, batch_size, bad_images):
        features.append(embed(images).numpy())
        labels.append(batch_labels)
    bad_images.check()
    found = sum(map(len, labels))
    if found + len(bad_images) != source.num_examples:
        raise RuntimeError(
            f"Every image must be seen once. {source.name} has {source.num_examples}; seen "
            f"{found}, skipped {len(bad_images)}."
        )
    return np.concatenate(features), np.concatenate(labels)
