"""Converts checkpoints of other programs into model_dirs that our jobs accept."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from simclr_tf.errors import RequestError
from simclr_tf.export import torchvision_format
from simclr_tf.export.architecture import Architecture, compare, infer
from simclr_tf.export.reference_format import our_shape, places_of_keys, places_of_names
from simclr_tf.files import checkpoint_prefix, write_text
from simclr_tf.training.checkpoints import Checkpoints, named_groups

_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_STEP_KEY = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
# TensorFlow's reader translates some errors of the file system into Python's.
_READ_ERRORS = (tf.errors.OpError, ValueError, IndexError, RuntimeError)
# Besides the networks: where the optimizer was, which is not converted, and the save counter.
_NOT_NETWORKS = ("optimizer/", "global_step/", "save_counter/")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A variable in a file, with its shape in this package."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Variables of another program under our groups and paths, and the step they were saved at."""

    variables: Mapping[str, Mapping[str, Stored]]
    step: int = 0


def convert(source: str, model_dir: str, *, encoder_only: bool = False) -> Architecture:
    """Writes a model_dir with a checkpoint and a `config.gin` that names the architecture.

    The architecture is inferred from the shapes of the variables. Each variable of the networks is
    filled once, and no variable of the source may be left over.

    Args:
      source: a checkpoint of google-research/simclr (its prefix, or a folder, whose newest
        checkpoint is taken), a SavedModel that it exported, or a state dict in torchvision's
        format (`.safetensors`).
      model_dir: where to write; must be new or empty.
      encoder_only: whether to drop projection head and classifier.

    Returns:
      The architecture of the converted networks.

    Raises:
      RequestError: the source cannot be read or is not one of our networks, or the model_dir holds
        something.
    """
    if tf.io.gfile.exists(model_dir) and tf.io.gfile.listdir(model_dir):
        raise RequestError(
            f"--model_dir must be new or empty. Received: {model_dir}, which holds "
            f"{', '.join(sorted(tf.io.gfile.listdir(model_dir))[:5])}. Nothing was changed."
        )
    is_torch = source.endswith(".safetensors")
    found = read_torchvision(source) if is_torch else read_reference(source)
    groups = {
        group: stored
        for group, stored in found.variables.items()
        if group == "encoder" or not encoder_only
    }
    architecture = infer(_shapes(groups))
    models = architecture.build()
    compare(
        {g: {v.path: tuple(v.shape) for v in m.variables} for g, m in models.items()},
        _shapes(groups),
    )
    _fill(models, groups)
    tf.io.gfile.makedirs(model_dir)
    recipe = f"# {architecture}\n# converted from {source}\n\n{architecture.recipe()}"
    write_text(os.path.join(model_dir, "config.gin"), recipe)
    settings = {"converted_from": source}
    Checkpoints(model_dir, named_groups(models), settings).save(found.step)
    return architecture


def read_reference(source: str) -> Source:
    """Opens a checkpoint or SavedModel of google-research/simclr's tf2 code.

    Raises:
      RequestError: there is none, it cannot be read, or it holds variables of other networks.
    """
    prefix = _prefix(source)
    try:
        reader = tf.train.load_checkpoint(checkpoint_prefix(prefix))
        shapes = reader.get_variable_to_shape_map()
        names = _names_by_key(reader) if _GRAPH_KEY in shapes else {}
        step = int(reader.get_tensor(_STEP_KEY)) if _STEP_KEY in shapes else 0
    except _READ_ERRORS as error:
        raise RequestError(f"{prefix} cannot be read: {str(error).splitlines()[0]}") from error
    if not names:
        raise RequestError(
            "SOURCE must be a checkpoint or SavedModel of TensorFlow 2. Received: "
            f"{source}, which names no objects, as those of TensorFlow 1. Use the tf2 version "
            "of the same checkpoint."
        )
    variables: dict[str, dict[str, Stored]] = {}
    for key, (group, path) in _places(names).items():
        shape = our_shape(path, shapes[key])
        variables.setdefault(group, {})[path] = Stored(shape, _reading(reader, key))
    return Source(variables, step)


def read_torchvision(source: str) -> Source:
    """Opens a state dict in torchvision's format.

    Raises:
      RequestError: it cannot be read, or holds variables other than a ResNet's.
    """
    groups = torchvision_format.from_torchvision(torchvision_format.load(source))
    return Source(
        {
            group: {path: Stored(value.shape, lambda v=value: v) for path, value in values.items()}
            for group, values in groups.items()
        }
    )


def _shapes(groups: Mapping[str, Mapping[str, Stored]]) -> dict[str, dict[str, tuple[int, ...]]]:
    return {group: {p: s.shape for p, s in stored.items()} for group, stored in groups.items()}


def _fill(models: Mapping[str, keras.Model], groups: Mapping[str, Mapping[str, Stored]]) -> None:
    for group, model in models.items():
        for variable in model.variables:
            stored = groups[group][variable.path]
            variable.assign(stored.read().reshape(stored.shape))


def _prefix(source: str) -> str:
    """Returns the prefix of the checkpoint that `source` names."""
    if tf.io.gfile.exists(os.path.join(source, "saved_model.pb")):
        return os.path.join(source, "variables", "variables")
    if tf.io.gfile.exists(f"{source}.index"):
        return source
    if not tf.io.gfile.isdir(source):
        raise RequestError(
            "SOURCE must be a folder with a checkpoint or SavedModel, a checkpoint's prefix (its "
            f"files without .index and .data), or a .safetensors file. Received: {source}, "
            f"which {'is none' if tf.io.gfile.exists(source) else 'is not there'}."
        )
    newest = tf.train.latest_checkpoint(source)
    if newest:
        return newest
    # The file that names the newest may be missing, or name the folder in which it was written.
    found = sorted(f for f in tf.io.gfile.listdir(source) if f.endswith(".index"))
    if len(found) != 1:
        raise RequestError(
            f"SOURCE must hold a checkpoint or SavedModel. Received: {source}, which has "
            f"{'several' if found else 'none'}{': ' if found else ''}{', '.join(found[:5])}. Name "
            "the prefix of one."
        )
    return os.path.join(source, found[0].removesuffix(".index"))


def _names_by_key(reader) -> dict[str, str]:
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_GRAPH_KEY))
    return {
        attribute.checkpoint_key: attribute.full_name
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.name == "VARIABLE_VALUE"
    }


def _places(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Maps keys to our groups and paths, for every variable of the networks."""
    wanted = {
        key: name
        for key, name in names.items()
        if not key.startswith(_NOT_NETWORKS) and "/.OPTIMIZER_SLOT/" not in key
    }
    by_name = places_of_names(wanted.values())
    found = [
        places_of_keys(wanted),
        {key: by_name[name] for key, name in wanted.items() if name in by_name},
    ]
    places = max(found, key=len)
    unknown = sorted(wanted.keys() - places.keys())
    if unknown:
        shown = "\n".join(f"  {key} (named {wanted[key]})" for key in unknown[:5])
        more = f"\n  and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise RequestError(
            "Every variable of SOURCE must belong to a ResNet, projection head or supervised head "
            f"of google-research/simclr. These do not:\n{shown}{more}"
        )
    twice = [place for place, count in collections.Counter(places.values()).items() if count > 1]
    if twice:
        raise RequestError(
            "Every variable of SOURCE must have a place of its own. Received several for "
            f"{twice[0][1]} of the {twice[0][0]}: SOURCE may hold more than one network."
        )
    return places


def _reading(reader, key: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        try:
            return reader.get_tensor(key)
        except _READ_ERRORS as error:
            raise RequestError(f"{key} cannot be read: {str(error).splitlines()[0]}") from error

    return read
