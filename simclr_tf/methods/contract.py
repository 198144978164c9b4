"""Calls a method's functions for the step, and says which of their promises a result breaks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors


def embed(method: Method, batch: Tensors) -> tuple[tf.Tensor, Tensors]:
    """Returns the representation [V*B, D], and the inputs of the loss.

    Raises:
        InvalidArgument: `embed` returned no dict with "representation", or not for each view.
    """
    found = method.embed(batch, training=True)
    rows = method.embedded_views * batch["labels"].shape[0]
    fits = isinstance(found, dict) and "representation" in found
    if not fits or found["representation"].shape[0] != rows:
        raise InvalidArgument(
            f"{_name(method)}.embed must return a dict with 'representation', [V*B, D] float32, "
            f"where V*B = {rows} for {method.embedded_views} views. Received: {_shown(found)}."
        )
    rest = {name: value for name, value in found.items() if name != "representation"}
    return found["representation"], rest


def inputs(method: Method, embedded: Tensors, targets: Tensors) -> Tensors:
    """Returns the inputs of the loss together, for `after_update`.

    Raises:
        InvalidArgument: `embed` and `targets` gave two of them the same name.
    """
    twice = sorted(embedded.keys() & targets.keys())
    if twice:
        raise InvalidArgument(
            f"{_name(method)}.embed and targets must name their results differently. Received: "
            f"{', '.join(twice)} by both."
        )
    return embedded | targets


def loss(method: Method, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
    """Returns the share of the loss, and the metrics beside it.

    Raises:
        InvalidArgument: `loss` did not return a scalar share and the metrics that are declared.
    """
    found = method.loss(embedded, targets)
    names = [metric.name for metric in method.metrics[1:]]
    fits = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)
    fits = fits and set(found[1]) == set(names)
    if not fits or not all(map(_is_scalar, (found[0], *found[1].values()))):
        raise InvalidArgument(
            f"{_name(method)}.loss must return its share and a dict of the metrics {names}, all "
            f"float32 scalars. Received: {_shown(found)}."
        )
    return found


def _name(method: Method) -> str:
    return type(method).__name__


def _is_scalar(value: Any) -> bool:
    return tf.is_tensor(value) and value.shape == () and value.dtype == tf.float32


def _shown(value: Any) -> str:
    """Describes tensors by dtype and shape, in the structures that hold them."""
    if tf.is_tensor(value):
        return f"{value.dtype.name} {value.shape}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_shown, value)) + ")"
    return type(value).__name__
