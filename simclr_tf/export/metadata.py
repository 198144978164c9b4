"""`assets.extra/metadata.json`: all that the user of a SavedModel must know to use it alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

import simclr_tf
from simclr_tf.export.module import input_of

EXTRA = "assets.extra"  # TF Serving's name for files that it does not serve


def metadata_path(folder: str) -> str:
    """Returns the path of the metadata of the SavedModel in `folder`."""
    return os.path.join(folder, EXTRA, "metadata.json")


def architecture_path(folder: str) -> str:
    """Returns the path of the encoder's architecture, in Keras' format."""
    return os.path.join(folder, EXTRA, "encoder.json")


def describe(
    signatures: Mapping[str, tf.types.experimental.ConcreteFunction],
    *,
    step: int,
    image_size: int,
    class_names: Sequence[str] | None,
    groups: Sequence[str],
) -> dict[str, Any]:
    """Returns the metadata of a SavedModel with these signatures, ready for JSON."""
    described = {name: _describe_signature(function) for name, function in signatures.items()}
    return {
        "step": step,
        "image_size": image_size,
        "classes": None if class_names is None else list(class_names),
        "networks": list(groups),
        "dimensions": {
            output: spec["shape"][-1]
            for signature in ("serving_default", "project", "classify")
            for output, spec in described.get(signature, {"outputs": {}})["outputs"].items()
            if output in ("representation", "projection", "logits")
        },
        "input_range": [0.0, 1.0],
        "preprocessing": _preprocessing(image_size),
        "signatures": described,
        "versions": {
            "simclr_tf": simclr_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "minimum_tf_serving": (
            f"{'.'.join(tf.__version__.split('.')[:2])}, the TensorFlow that wrote this. An older "
            "server may load it, and is outside TensorFlow's promise of compatibility."
        ),
    }


def _describe_signature(function) -> dict[str, dict[str, Any]]:
    spec = input_of(function)
    return {
        "inputs": {spec.name: _describe_tensor(spec)},
        "outputs": {name: _describe_tensor(t) for name, t in function.structured_outputs.items()},
    }


def _describe_tensor(spec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _preprocessing(image_size: int) -> str:
    whole = (
        f" An image of exactly {image_size} x {image_size} pixels is taken whole."
        if image_size <= 32
        else ""
    )
    return (
        "RGB, divided by 255; no mean is subtracted and no deviation divided by. The central "
        "square, of 0.875 of the shorter side, resized bicubically without antialiasing to "
        f"{image_size} x {image_size} pixels and clipped to [0, 1].{whole} The signature "
        "encode_jpeg does all of this to encoded images; to the others the client has to."
    )
