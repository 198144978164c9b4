"""Encoders from `keras.applications`: any of its networks, without its classifier.

A network is rebuilt layer by layer, under the names and with the values of Keras, with four
changes. The network's own preprocessing comes first, so that it takes images in [0, 1]. Batch
normalization is synchronized over replicas. Dropout is left out: views of an image differ enough,
and a step that draws nothing can be computed again (micro-batches) and resumed bit for bit. The
input statistics of EfficientNet are read from their variables, which a checkpoint restores, where
Keras' layer keeps a copy of them.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable

import gin
import keras
import numpy as np

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import InvalidArgument, cause
from simclr_tf.models.application_layers import LayerScale, Preprocessing, Standardize
from simclr_tf.names import local

_DROPOUTS = ("Dropout", "SpatialDropout2D", "StochasticDepth")
# What reading a file of weights that does not fit, or that is none, gives.
_UNFIT = (ValueError, OSError, KeyError, TypeError, AttributeError)


@gin.configurable
def keras_application(
    name: str = "", weights: str | None = None, *, image_size: int
) -> keras.Model:
    """Builds a network of `keras.applications` without its classifier as an encoder.

    The momentum of batch normalization is this package's 0.9, not the network's (0.999 in
    MobileNetV2), whose averages would take thousands of steps to forget where they began.

    Args:
        name: The function of `keras.applications`, such as "MobileNetV2" or "ConvNeXtTiny".
        weights: A file of weights for it (`.weights.h5` or `.h5`) on this machine; None for initial
            values. Nothing is downloaded. Later a checkpoint holds the values.
        image_size: Side of the images in pixels, which the encoder then requires.

    Returns:
        A functional model named "encoder" from images [N, S, S, 3] in [0, 1] to a dict of
        "final_avg_pool" [N, D] float32.

    Raises:
        InvalidArgument: There is no such network, it needs larger images, or the weights are no
            file on this machine or do not fit.
    """
    application = _application(name)
    network = _network(name, application, image_size)
    if weights is not None:
        _load(network, name, weights)
    images = keras.Input((image_size, image_size, 3), name="images")
    module = inspect.getmodule(application).__name__.rpartition(".")[2]
    x = Preprocessing(module, dtype="float32", name="preprocessing")(images)
    features = _rebuilt(network, with_values=weights is not None)(x)
    pool = keras.layers.GlobalAveragePooling2D(dtype="float32", name="final_avg_pool")
    return keras.Model(images, {"final_avg_pool": pool(features)}, name="encoder")


def _application(name: str) -> Callable[..., keras.Model]:
    known = {n.lower(): n for n in dir(keras.applications) if n[0].isupper()}
    if name not in known.values():
        close = difflib.get_close_matches(str(name).lower(), known, n=3)
        hint = f" Did you mean {' or '.join(known[n] for n in close)}?" if close else ""
        raise InvalidArgument(
            "keras_application.name must be a network of keras.applications. Received: "
            f"{name!r}.{hint} This Keras has {', '.join(known.values())}."
        )
    return getattr(keras.applications, name)


def _network(name: str, application: Callable[..., keras.Model], image_size: int) -> keras.Model:
    shape = (image_size, image_size, 3)
    try:
        return application(include_top=False, weights=None, input_shape=shape)
    except ValueError as error:  # its own smallest size is named in it
        raise InvalidArgument(
            f"{name} must be able to take the recipe's images. Received: images of {image_size} x "
            f"{image_size} pixels; Keras says: {cause(error)}. Set a larger data.image_size."
        ) from error


def _load(network: keras.Model, name: str, weights: str) -> None:
    path = local(weights)
    if not os.path.isfile(path):
        downloads = " It would be downloaded, and training downloads nothing."
        raise InvalidArgument(
            "keras_application.weights must be a file on this machine, or None. Received: "
            f"{weights!r}, which is none.{downloads if _is_download(weights) else ''} Where Keras "
            f"may download, keras.applications.{name}(include_top=False).save_weights("
            f"'{name}.weights.h5') writes one. To resume or to evaluate a run, whose checkpoints "
            "hold the values, bind None."
        )
    try:
        network.load_weights(path)
    except _UNFIT as error:
        raise InvalidArgument(
            f"keras_application.weights must hold {name} without its classifier (include_top="
            f"False). Received: {path}, of which Keras says: {cause(error)}."
        ) from error


def _is_download(weights: str) -> bool:
    return weights == "imagenet" or "://" in weights


def _rebuilt(network: keras.Model, with_values: bool) -> keras.Model:
    """Returns the network with this package's layers, newly initialized or with its values."""
    names, pairs = _stable_names(network), []

    def rebuild(layer: keras.Operation) -> keras.Operation:
        new = _layer_like(layer, names[layer.name])
        pairs.append((layer, new))
        return new

    rebuilt = keras.models.clone_model(
        network, clone_function=rebuild, call_function=_call_without_mask
    )
    for old, new in pairs if with_values else ():
        if isinstance(old, keras.layers.Layer) and new.weights:
            new.set_weights(
                old.get_weights()[: len(new.weights)]
            )  # not the count of a Normalization
    return rebuilt


def _call_without_mask(layer: keras.Operation, *args, mask=None, **kwargs):
    """Calls a layer; Keras' normalization records a mask, which images do not have."""
    del mask
    return layer(*args, **kwargs)


def _layer_like(layer: keras.Operation, name: str) -> keras.Operation:
    if not isinstance(layer, keras.layers.Layer):
        return layer.__class__.from_config(layer.get_config())
    common = {"name": name, "dtype": layer.dtype_policy.name}
    if isinstance(layer, keras.layers.BatchNormalization):
        kept = ("epsilon", "center", "scale", "gamma_initializer")
        return SyncBatchNormalization(**{key: getattr(layer, key) for key in kept}, **common)
    if type(layer).__name__ in _DROPOUTS:
        return keras.layers.Identity(**common)
    if type(layer).__name__ == "LayerScale":
        return LayerScale(layer.init_values, **common)
    if isinstance(layer, keras.layers.Normalization):
        return Standardize(**common) if layer.weights else _rescaling(layer, common)
    return layer.__class__.from_config({**layer.get_config(), "name": name})


def _rescaling(layer: keras.layers.Normalization, common: dict[str, str]) -> keras.layers.Layer:
    """Returns the same standardization by constants of the graph; Keras captures tensors."""
    scale = 1.0 / np.sqrt(np.asarray(layer.input_variance))
    offset = -np.asarray(layer.input_mean) * scale
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), **common)


def _stable_names(network: keras.Model) -> dict[str, str]:
    """Returns new names for the layers: Keras numbers those without a name through the process."""
    counts: dict[str, int] = {}
    names = {}
    for layer in network.operations:
        numbered = re.fullmatch(r"(.*?)(_\d+)?", layer.name)[1]
        automatic = numbered.replace("_", "") == type(layer).__name__.lower()
        if automatic:
            counts[numbered] = counts.get(numbered, -1) + 1
            number = counts[numbered]
            names[layer.name] = f"{numbered}_{number}" if number else numbered
        else:
            names[layer.name] = layer.name
    return names
