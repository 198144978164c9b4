"""`export`: the newest checkpoint's encoder as a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Callable

import gin
import keras
import tensorflow as tf

from simclr_tf.data.data import Data, data
from simclr_tf.export.saved_model import export_encoder
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import refuse_tpu, requests_checked
from simclr_tf.jobs.pretrained import pretrained
from simclr_tf.models.resnet import resnet


@gin.configurable
def export(
    context: Context,
    *,
    data: Callable[..., Data] = data,
    encoder: Callable[..., keras.Model] = resnet,
) -> str:
    """Exports the encoder of the newest complete checkpoint in the model_dir.

    Args:
      context: what the command line says.
      data: gives the image size, as in pretraining; no image is read.
      encoder: builds the network, as in pretraining.

    Returns:
      The folder of the SavedModel.
    """
    refuse_tpu(context)
    with requests_checked():
        size = data(data_dir=context.data_dir).image_size
        model = encoder(image_size=size)
        weights = pretrained(context.model_dir, model_dir=context.model_dir)
        weights.restore({"encoder": model})
    with tf.io.gfile.GFile(os.path.join(context.model_dir, "config.gin")) as file:
        recipe = file.read()
    folder = export_encoder(
        context.model_dir, weights.step, model, lambda: encoder(image_size=size), recipe=recipe
    )
    print(f"encoder: {folder}", flush=True)
    return folder
