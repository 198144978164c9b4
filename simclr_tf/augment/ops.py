"""The ops that a policy may name: `policy_op` defines each once, with its properties."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simclr_tf.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Op:
    """An op that a policy may name.

    Attributes:
        name: the op's name in a policy.
        function: (images float32 [N, H, W, 3] in [0, 1], keys uint32 [N, 2], *, op, probability,
            strength) -> images of the same shape and range. It is pure: its draws depend on keys
            and `op` alone.
        max_strength: the largest strength, or None for an op that has no strength.
        compiles: whether XLA compiles it. If not, a policy with it runs on the host, op by op.
    """

    name: str
    function: Callable[..., tf.Tensor]
    max_strength: float | None = math.inf
    compiles: bool = True


# Ops by name. Importing a module registers its ops; `policy` imports the modules.
OPS: dict[str, Op] = {}


def policy_op(
    name: str, *, max_strength: float | None = math.inf, compiles: bool = True, **fixed: Any
) -> Callable[[Callable[..., tf.Tensor]], Callable[..., tf.Tensor]]:
    """Returns a decorator that registers a function as an op with the properties of `Op`.

    Args:
        name: the op's name in a policy.
        max_strength: the largest strength, or None for an op that has no strength.
        compiles: whether XLA compiles it.
        **fixed: arguments of the function that this name fixes.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        InvalidArgument: another function has the name, or this one lacks a parameter.
    """

    def register(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        _check_parameters(name, function)
        if name in OPS and _origin(OPS[name].function) != _origin(function):
            raise InvalidArgument(
                f"An op must have a name of its own. Received: {name!r}, which "
                f"{_origin(OPS[name].function)} has. Choose another."
            )
        named = functools.partial(function, **fixed) if fixed else function
        OPS[name] = Op(name, named, max_strength, compiles)
        return function

    return register


def _check_parameters(name: str, function: Callable[..., tf.Tensor]) -> None:
    known = inspect.signature(function).parameters
    missing = [
        parameter for parameter in ("op", "probability", "strength") if parameter not in known
    ]
    if missing:
        raise InvalidArgument(
            "An op must take (images, keys, *, op, probability, strength). Received: "
            f"{name!r}, whose function lacks {', '.join(missing)}."
        )


def _origin(function: Callable[..., tf.Tensor]) -> str:
    """Returns where a function is defined: the same if its module is loaded again."""
    function = getattr(function, "func", function)
    return f"{function.__module__}.{function.__qualname__}"
