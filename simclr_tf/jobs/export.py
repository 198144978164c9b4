"""`export`: the newest checkpoint's networks as a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Callable

import gin
import keras
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.errors import RequestError
from simclr_tf.export.saved_model import export_networks
from simclr_tf.export.weights import pretrained
from simclr_tf.models.heads import projection_head
from simclr_tf.models.networks import representation_dim
from simclr_tf.models.resnet import resnet
from simclr_tf.training.failures import as_request_error


@gin.configurable
def export(
    context: Context,
    *,
    data: Callable[..., Dataset] = data,
    encoder: Callable[..., keras.Model] = resnet,
    projection_head: Callable[..., keras.Model] = projection_head,
) -> str:
    """Exports the newest complete checkpoint in the model_dir: encoder and projection head.

    `pretrained.average = True` exports the moving averages of the weights.

    Args:
      context: the command line's values.
      data: gives the image size, as in pretraining; no image is read.
      encoder: builds the network, as in pretraining.
      projection_head: builds it as in pretraining; left out if the checkpoint has none.

    Returns:
      The folder of the SavedModel.
    """
    _refuse_tpu(context)
    with as_request_error():
        size = data(data_dir=context.data_dir).image_size
        weights = pretrained(context.model_dir, model_dir=context.model_dir)
        networks = {"encoder": encoder(image_size=size)}
        if "projection_head" in weights.groups:
            dim = representation_dim(networks["encoder"])
            networks["projection_head"] = projection_head(input_dim=dim)
        weights.restore(networks)
    with tf.io.gfile.GFile(os.path.join(context.model_dir, "config.gin")) as file:
        recipe = file.read()
    folder = export_networks(
        context.model_dir, weights.step, networks, lambda: networks, image_size=size, recipe=recipe
    )
    print(f"encoder: {folder}", flush=True)
    return folder


def _refuse_tpu(context: Context) -> None:
    """Raises RequestError if the command line requests a TPU: this job uses no device."""
    if context.tpu not in ("auto", "none"):
        raise RequestError(
            "This job runs on the host, and on no TPU. Received: "
            f"--tpu={context.tpu}. Leave --tpu out for this job."
        )
