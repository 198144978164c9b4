"""Writes networks as a SavedModel: for TF Serving, and for fine-tuning as a TF-Hub module."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from simclr_tf.export.metadata import EXTRA, architecture_path, describe, metadata_path
from simclr_tf.export.module import FeatureVector, make_signatures
from simclr_tf.export.warmup import write_warmup


def export_networks(
    model_dir: str,
    step: int,
    trained: Mapping[str, keras.Model],
    build: Callable[[], Mapping[str, keras.Model]],
    *,
    image_size: int,
    recipe: str,
    class_names: Sequence[str] | None = None,
) -> str:
    """Writes `saved_model/<step>/` in `model_dir`, completely or not at all.

    Args:
      model_dir: the run's folder.
      step: the training step of `trained`, which becomes the version that TF Serving sees.
      trained: functional models, possibly replicated: "encoder", from images to a dict with
        "final_avg_pool" [B, D]; if wanted "projection_head", from representations [B, D] to a dict
        "projection_0" ... "projection_n"; and "classifier", from representations to logits [B, K].
      build: builds networks of the same names and architectures on this host; the encoder has
        only layers that Keras can serialize.
      image_size: side of the training images in pixels.
      recipe: the run's configuration, kept beside the model as `assets.extra/config.gin`.
      class_names: names of the classifier's K classes, in the order of its logits.

    Returns:
      The folder of the SavedModel.

    Raises:
      ValueError: `build` gives other networks than `trained`, or there are not K class names.
    """
    networks = build()
    _copy_values(trained, networks)
    _check_class_names(networks, class_names)
    module = FeatureVector(networks)
    signatures = make_signatures(module, image_size, class_names)
    folder = os.path.join(model_dir, "saved_model", str(step))
    partial = os.path.join(model_dir, "saved_model", f"partial-{step}")
    if tf.io.gfile.exists(partial):
        tf.io.gfile.rmtree(partial)
    tf.saved_model.save(module, partial, signatures=signatures)
    tf.io.gfile.makedirs(os.path.join(partial, EXTRA))
    metadata = describe(
        signatures, step=step, image_size=image_size, class_names=class_names, groups=list(networks)
    )
    _write(os.path.join(partial, EXTRA, "config.gin"), recipe)
    _write(architecture_path(partial), networks["encoder"].to_json())
    _write(metadata_path(partial), json.dumps(metadata, indent=1) + "\n")
    write_warmup(partial, signatures, image_size)
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
    tf.io.gfile.rename(partial, folder)
    return folder


def _copy_values(trained: Mapping[str, keras.Model], networks: Mapping[str, keras.Model]) -> None:
    """Copies by path, since layers may have been built in another order."""
    if set(trained) != set(networks):
        raise ValueError(
            "build must give the networks that were trained. Received: "
            f"{', '.join(networks)}, but trained are {', '.join(trained)}."
        )
    for group, network in networks.items():
        values = {v.path: v for v in trained[group].variables}
        differing = set(values) ^ {v.path for v in network.variables}
        if differing:
            raise ValueError(
                f"build must give the {group} with the variables of the trained one. Only one of "
                f"the two has: {', '.join(sorted(differing)[:5])}."
            )
        for variable in network.variables:
            variable.assign(values[variable.path].numpy())


def _check_class_names(networks, class_names: Sequence[str] | None) -> None:
    if class_names is None:
        return
    classes = networks["classifier"].output_shape[-1] if "classifier" in networks else 0
    if len(class_names) != classes:
        raise ValueError(
            "class_names must name each class of the classifier. Received: "
            f"{len(class_names)} names for {classes} classes."
        )


def _write(path: str, text: str) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)
