"""`assets.extra/encoder.json`: builds an encoder from text that may be untrusted.

Keras builds whatever such a text names, including layers that run code of the text (`Lambda`), that
unpickle (`TorchModuleWrapper`) or that load other models. This module accepts only the layers of
our encoders, and classes that the program has registered with Keras itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras

# Register the layers of the encoders with Keras.
import simclr_tf.models.application_layers
import simclr_tf.models.patches
import simclr_tf.models.resnet  # noqa: F401

# None of these runs code of the text, unpickles, or opens a file.
_MODULES = {
    "keras": {"DTypePolicy", "Sequential"},
    "keras.initializers": {
        "GlorotUniform",
        "HeNormal",
        "Ones",
        "VarianceScaling",
        "Zeros",
    },
    "keras.layers": {
        "Activation",
        "Add",
        "AveragePooling2D",
        "Concatenate",
        "Conv2D",
        "Cropping2D",
        "Dense",
        "DepthwiseConv2D",
        "GlobalAveragePooling2D",
        "Identity",
        "InputLayer",
        "LayerNormalization",
        "MaxPooling2D",
        "Multiply",
        "ReLU",
        "Rescaling",
        "Reshape",
        "SeparableConv2D",
        "ZeroPadding2D",
    },
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer"},
    "keras.src.ops.nn": {"Relu"},
    "keras.src.ops.numpy": {"Add", "Multiply"},
    "keras.src.models.functional": {"Functional"},
    None: {"__keras_tensor__"},
}


def build_encoder(text: str) -> keras.Model:
    """Returns the network that a text describes, newly initialized, with h as its only output.

    Raises:
      ValueError: it describes no network, or has layers that are neither ours nor registered.
    """
    try:
        description = json.loads(text, object_hook=_without_open_arguments)
        unknown = sorted({name for name in map(_unknown, _parts(description)) if name})
        if unknown:
            raise ValueError(f"unknown layers: {', '.join(unknown[:5])}")
        network = keras.models.model_from_json(json.dumps(description))
        # In Keras 3.10 `network.input` is a list of one.
        return keras.Model(network.inputs[0], network.output["final_avg_pool"], name="encoder")
    except Exception as error:  # Keras raises many kinds of errors for a malformed text
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{type(error).__name__}: {first[:200]}") from error


def _without_open_arguments(part: dict[str, Any]) -> dict[str, Any]:
    """Returns the description of a Keras object without the arguments that it leaves open (None).

    Keras writes all its arguments, and an older version refuses unknown ones: Keras 3.10 refuses
    `input_axes` of VarianceScaling and `quantization_config` of Dense, which Keras 3.15 writes.
    """
    if str(part.get("module")).startswith("keras."):
        part["config"] = {name: v for name, v in part["config"].items() if v is not None}
    return part


def _parts(content: Any) -> Iterator[dict]:
    """Yields every object below that names its class."""
    if isinstance(content, dict):
        if "class_name" in content or "registered_name" in content:
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _parts(part)


def _unknown(part: dict) -> str | None:
    """Returns the class of an object in the text if it may not be built."""
    name, module, registered = (part.get(x) for x in ("class_name", "module", "registered_name"))
    if name in _MODULES.get(module, ()):
        return None
    known = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    # Without a module, or for functions, Keras uses the name of the class alone.
    is_known = isinstance(module, str) and isinstance(known, type) and known.__name__ == name
    return None if is_known else f"{module}.{name}"
