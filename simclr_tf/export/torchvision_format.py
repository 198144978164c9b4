"""Converts our plain ResNets to and from state dicts of PyTorch, in torchvision's format.

Kernels are transposed; the classifier `fc` is our linear probe. In ResNet-18 and -34 our first
group has a projection shortcut, `layer1.0.downsample`, that torchvision's do not have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.export.architecture import compare, infer
from simclr_tf.training.checkpoints import (
    complete_steps,
    named_groups,
    read_manifest,
    restore_groups,
)

Arrays = Mapping[str, np.ndarray]

_LEAVES = {
    "conv": {"kernel": "weight"},
    "bn": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
    "dense": {"kernel": "weight", "bias": "bias"},
}
_COUNTER = "num_batches_tracked"  # used only when averaging without momentum
_OUR_PATH = re.compile(
    r"(?:stem|block_group(\d)_block(\d+)|(probe))_(shortcut_)?(conv|bn|dense)(\d?)/(\w+)$"
)
_THEIR_KEY = re.compile(
    r"(?:(?:layer(\d)\.(\d+)\.)?(?:(downsample)\.([01])|(conv|bn)(\d))|(fc))\.(\w+)$"
)


def torchvision_key(path: str) -> str:
    """Returns torchvision's key of a variable of a probe or of an encoder without SK layers."""
    group, block, probe, shortcut, kind, number, leaf = _OUR_PATH.match(path).groups()
    before = f"layer{group}.{int(block) - 1}." if group else ""
    if probe:
        layer = "fc"
    elif shortcut:
        layer = f"downsample.{('conv', 'bn').index(kind)}"
    else:
        layer = f"{kind}{number or 1}"
    return f"{before}{layer}.{_LEAVES[kind][leaf]}"


def our_path(key: str) -> str | None:
    """Inverts `torchvision_key`; returns None for a key of no variable of torchvision's ResNets."""
    match = _THEIR_KEY.match(key)
    if not match:
        return None
    group, block, downsample, place, kind, number, fc, leaf = match.groups()
    if downsample:
        kind = ("conv", "bn")[int(place)]
    kind = "dense" if fc else kind
    leaves = {theirs: ours for ours, theirs in _LEAVES[kind].items()}
    known = group or fc or (not downsample and number == "1")  # a stem has only one convolution
    if leaf not in leaves or not known:
        return None
    before = f"block_group{group}_block{int(block) + 1}" if group else "stem"
    if fc:
        layer = "probe_dense"
    elif downsample:
        layer = f"{before}_shortcut_{kind}"
    else:
        layer = f"{before}_{kind}{number if group else ''}"
    return f"{layer}/{leaves[leaf]}"


def to_torchvision(variables: Arrays) -> dict[str, np.ndarray]:
    """Returns a state dict for variables by our paths: kernels [F, C, h, w], `fc` [classes, D]."""
    state = {}
    for path, value in variables.items():
        key = torchvision_key(path)
        state[key] = np.ascontiguousarray(np.transpose(value, _to_theirs(value.ndim)))
        if key.endswith("running_var"):
            state[key.replace("running_var", _COUNTER)] = np.zeros([], np.int64)
    return state


def from_torchvision(state: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Returns our groups (`encoder`, and `probe` if there is a classifier) and paths, in float32.

    Raises:
      RequestError: there are keys of other networks.
    """
    kept = [key for key in state if not key.endswith(f".{_COUNTER}")]
    unknown = [key for key in kept if our_path(key) is None]
    if unknown or not kept:
        raise RequestError(
            "The file must hold a ResNet under the names of torchvision, such as conv1.weight and "
            f"layer1.0.bn1.running_mean. Received {len(unknown)} of {len(state)} under other "
            f"names: {', '.join(sorted(unknown)[:5])}."
        )
    if "layer1.0.conv3.weight" not in state and "layer1.0.downsample.0.weight" not in state:
        raise RequestError(
            "ResNet-18 and -34 must have a shortcut convolution in their first group, as in "
            "google-research/simclr. Received: one without layer1.0.downsample.0.weight, as "
            "torchvision builds them. Only ResNet-50 and deeper are the same network in both."
        )
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key in kept:
        path, value = our_path(key), np.asarray(state[key], np.float32)
        group = "probe" if path.startswith("probe") else "encoder"
        groups.setdefault(group, {})[path] = np.transpose(value, _to_ours(value.ndim))
    return groups


def load(path: str) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file.

    Raises:
      RequestError: the file is missing, has another format, or has a type that NumPy lacks.
    """
    safetensors = _safetensors()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return safetensors.numpy.load(file.read())
    except (tf.errors.OpError, safetensors.SafetensorError, KeyError, TypeError) as error:
        raise RequestError(
            f"SOURCE must be a .safetensors file of float16, float32 or float64. Reading {path} "
            f"gave {type(error).__name__}: {error}. Save it from PyTorch in one of these types."
        ) from error


def export_torchvision(model_dir: str, output: str) -> list[str]:
    """Writes the newest checkpoint's encoder, and probe if it has one, as a `.safetensors` file.

    Args:
      model_dir: the run's folder.
      output: the file; must not exist.

    Returns:
      The keys written.

    Raises:
      RequestError: there is no checkpoint, its encoder is not one of torchvision's, or the output
        cannot be written.
    """
    safetensors = _safetensors()
    steps = complete_steps(model_dir)
    if not steps:
        raise RequestError(f"MODEL_DIR must hold a checkpoint. Received: {model_dir}.")
    if not output.endswith(".safetensors") or tf.io.gfile.exists(output):
        raise RequestError(
            f"--output must be a new file that ends in .safetensors. Received: {output}."
        )
    saved = read_manifest(model_dir, steps[-1])["variables"]
    shapes = {
        group: {path: tuple(shape) for path, (shape, _) in saved[group].items()}
        for group in ("encoder", "probe")
        if group in saved
    }
    architecture = infer(shapes)
    if architecture.sk_ratio or architecture.stem != "imagenet":
        raise RequestError(
            "torchvision has only ResNets with the ImageNet stem and without selective kernels. "
            f"Received: {architecture}."
        )
    models = architecture.build()
    groups = named_groups(models)
    compare({g: {p: tuple(v.shape) for p, v in vs.items()} for g, vs in groups.items()}, shapes)
    restore_groups(model_dir, steps[-1], groups)
    state = to_torchvision({p: v.numpy() for vs in groups.values() for p, v in vs.items()})
    if folder := os.path.dirname(output):
        tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(output, "wb") as file:
        file.write(safetensors.numpy.save(state, metadata={"format": "pt"}))
    return list(state)


def _to_theirs(rank: int) -> tuple[int, ...]:
    return {4: (3, 2, 0, 1), 2: (1, 0)}.get(rank, tuple(range(rank)))


def _to_ours(rank: int) -> tuple[int, ...]:
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(rank, tuple(range(rank)))


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise RequestError(
            "Files of PyTorch need the package safetensors. Install it: pip install "
            '"simclr_tf[torch]", or pip install safetensors.'
        ) from error
    return safetensors
