"""The encoder as a SavedModel: for TF Serving, and for fine-tuning as a TF-Hub feature vector.

What is exported is a copy of the encoder that was built outside any strategy, so its graph holds
no collective op, and it loads where this package is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import keras
import tensorflow as tf


class FeatureVector(tf.__internal__.tracking.AutoTrackable):
    """A TF-Hub image feature vector: `module(images, training=False)` -> representation [B, D].

    Images are float32 [B, H, W, 3] in [0, 1], at about the size of training. With `training=True`
    batch normalization uses the batch's statistics and moves its averages, as fine-tuning needs.

    Attributes:
      variables: all of the encoder's variables.
      trainable_variables: those that fine-tuning changes.
      regularization_losses: none, an empty list.
    """

    def __init__(self, encoder: keras.Model):
        self._encoder = encoder
        self.trainable_variables = [v.value for v in encoder.trainable_variables]
        self.variables = [v.value for v in encoder.variables]
        self.regularization_losses = []

    @tf.function
    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self._encoder(images, training=training)["final_avg_pool"]

    @tf.function
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The `serving_default` signature."""
        return {"representation": self(images, training=False)}


def export_encoder(
    model_dir: str,
    step: int,
    trained: keras.Model,
    build: Callable[[], keras.Model],
    *,
    recipe: str,
) -> str:
    """Writes `saved_model/<step>/` in `model_dir`, whole or not at all.

    Args:
      model_dir: the run's folder.
      step: the training step of `trained`, which becomes the version that TF Serving sees.
      trained: the encoder, possibly replicated.
      build: builds an encoder of the same architecture on this host.
      recipe: the run's configuration, kept beside the model as `assets.extra/config.gin`.

    Returns:
      The folder of the SavedModel.
    """
    encoder = build()
    for variable, value in zip(encoder.variables, trained.variables, strict=True):
        variable.assign(value.numpy())
    module = FeatureVector(encoder)
    images = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    for training in (False, True):
        module.__call__.get_concrete_function(images, training=training)
    folder = os.path.join(model_dir, "saved_model", str(step))
    partial = os.path.join(model_dir, "saved_model", f"partial-{step}")
    if tf.io.gfile.exists(partial):
        tf.io.gfile.rmtree(partial)
    tf.saved_model.save(
        module,
        partial,
        signatures={"serving_default": module.serve.get_concrete_function(images)},
    )
    extra = os.path.join(partial, "assets.extra")
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(os.path.join(extra, "config.gin"), "w") as file:
        file.write(recipe)
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
    tf.io.gfile.rename(partial, folder)
    return folder
