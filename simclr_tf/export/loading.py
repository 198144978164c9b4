"""Reads a SavedModel of this project: its weights, its metadata, its encoder for Keras."""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from simclr_tf.errors import RequestError
from simclr_tf.export.encoder_json import build_encoder
from simclr_tf.export.metadata import architecture_path, metadata_path
from simclr_tf.files import checkpoint_prefix
from simclr_tf.models.heads import first_layers, linear_probe, projection_head

Weights = dict[str, dict[str, np.ndarray]]


def read_metadata(path: str) -> dict[str, Any]:
    """Returns the metadata of a SavedModel that this project exported.

    Raises:
      RequestError: `path` is no such SavedModel.
    """
    if not tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        raise RequestError(
            f"A folder with a SavedModel is needed, such as runs/NAME/saved_model/STEP. Received: "
            f"{path}, which holds no saved_model.pb."
        )
    try:
        with tf.io.gfile.GFile(metadata_path(path)) as file:
            return _checked(json.load(file))
    except (tf.errors.OpError, ValueError, RecursionError) as error:
        raise RequestError(
            "The SavedModel must be one that simclr_tf exported. Received: "
            f"{path}, whose assets.extra/metadata.json is missing or not as it was written. Export "
            "it again (--job=export), or copy assets.extra from the model that it was made of."
        ) from error


def read_weights(path: str) -> Weights:
    """Returns the values of all variables of a SavedModel that this project exported.

    No network is built and no graph is loaded.

    Args:
      path: the folder of the SavedModel.

    Returns:
      Network ("encoder", "projection_head", "classifier") -> Keras variable path -> value.

    Raises:
      RequestError: `path` is no such SavedModel, or its files are not complete.
    """
    networks = read_metadata(path)["networks"]
    try:
        return _read_weights(os.path.join(path, "variables", "variables"), networks)
    except (tf.errors.OpError, ValueError, LookupError) as error:
        raise RequestError(
            f"The SavedModel must be complete. Received: {path}, in which the variables of "
            f"{', '.join(networks)} cannot be read ({str(error).splitlines()[0]}). Copy or export "
            "it again."
        ) from error


def load_encoder(path: str, trainable: bool = True) -> keras.Model:
    """Returns the encoder of a SavedModel as a Keras 3 layer, for fine-tuning with Keras.

    >>> encoder = load_encoder("runs/quickstart/saved_model/313")
    >>> representation = encoder(tf.zeros([8, 32, 32, 3]))
    >>> representation.shape.rank, representation.shape[0]
    (2, 8)

    It is built from the architecture stored with the SavedModel, in the scope of the strategy in
    which this is called. So its weights are variables of Keras, `training` has the same effect as
    in pretraining, and batch normalization is synchronized over the strategy's replicas.

    Args:
      path: the folder of the SavedModel.
      trainable: whether it learns; if not, its batch normalization is in inference mode too.

    Returns:
      A functional model named "encoder", images [B, H, W, 3] in [0, 1] -> representation [B, D].

    Raises:
      RequestError: `path` is no SavedModel of this project or not complete, or its architecture has
        unknown layers.
    """
    values = read_weights(path).get("encoder", {})
    try:
        with tf.io.gfile.GFile(architecture_path(path)) as file:
            encoder = build_encoder(file.read())
        for variable in encoder.variables:
            variable.assign(values[variable.path])
    except (tf.errors.OpError, ValueError, LookupError) as error:
        raise RequestError(
            f"The encoder's architecture must be readable. Received: {path}, where it is not "
            f"({str(error).splitlines()[0]}). Layers of your own must be imported before."
        ) from error
    encoder.trainable = trainable
    return encoder


def load_classifier(path: str) -> keras.Model:
    """Returns the classifier of a SavedModel, from representations [B, D] to logits [B, K].

    Beside the linear layer it may have layers of `projection_head`, as after fine-tuning from one.

    Args:
      path: the folder of the SavedModel.

    Raises:
      RequestError: `path` is no SavedModel of this project, it is not complete, or it has no such
        classifier.
    """
    values = read_weights(path).get("classifier", {})
    try:
        classifier = _build_classifier(values)
        if sorted(v.path for v in classifier.variables) != sorted(values):
            raise LookupError("it has other layers")
        for variable in classifier.variables:
            variable.assign(values[variable.path])
    except (ValueError, LookupError) as error:
        raise RequestError(
            "The SavedModel must hold a linear classifier, on the representation or on a layer of "
            f"@projection_head. Received: {path}, with {len(values)} variables of a classifier. "
            "Take one that finetune or supervised exported."
        ) from error
    return classifier


def _build_classifier(values: dict[str, np.ndarray]) -> keras.Model:
    width, classes = values["probe_dense/kernel"].shape
    layers = sum(path.endswith("_dense/kernel") for path in values) - 1
    if not layers:
        return linear_probe(classes, input_dim=width)
    # Only the last layer of a whole head has no offset.
    cut_off = f"projection_{layers}_bn/beta" in values
    head = projection_head(
        num_layers=layers + cut_off,
        output_dim=width,
        input_dim=values["projection_1_dense/kernel"].shape[0],
    )
    kept = first_layers(head, layers)
    logits = linear_probe(classes, input_dim=width)(kept.output[f"projection_{layers}"])
    return keras.Model(kept.input, logits, name="classifier")


def _checked(metadata: Any) -> dict[str, Any]:
    """Returns the metadata; raises ValueError unless the parts in use are as `describe` writes."""
    kinds = {"step": int, "image_size": int, "networks": list, "classes": (list, type(None))}
    if not isinstance(metadata, dict) or not all(
        isinstance(metadata.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError("something is missing or of another type")
    names = [*metadata["networks"], *(metadata["classes"] or [])]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is no text")
    return metadata


def _read_weights(prefix: str, networks: list[str]) -> Weights:
    reader = tf.train.load_checkpoint(checkpoint_prefix(prefix))
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )

    def children(node: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in graph.nodes[node].children}

    def value(node: int) -> np.ndarray:
        [attribute] = graph.nodes[node].attributes
        return reader.get_tensor(attribute.checkpoint_key)

    groups = children(children(0)["networks"])
    return {
        name: {
            path: value(node) for path, node in children(children(groups[name])["weights"]).items()
        }
        for name in networks
    }
