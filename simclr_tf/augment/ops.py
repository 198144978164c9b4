"""What a policy knows of its ops: each is defined once, with its properties, by `policy_op`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Op:
    """An op that a policy may name.

    Attributes:
        name: by which a policy names it.
        function: (images float32 [N, H, W, 3] in [0, 1], keys uint32 [N, 2], *, op, probability,
            strength) -> images alike. It is pure, and draws by keys and `op` alone.
        max_strength: the largest strength, or None for an op that has no strength.
        compiles: whether XLA compiles it. If not, a policy with it runs on the host, op by op.
    """

    name: str
    function: Callable[..., tf.Tensor]
    max_strength: float | None = math.inf
    compiles: bool = True


# By name. Ops register when their module is imported, which `policy` does.
OPS: dict[str, Op] = {}


def policy_op(
    name: str, *, max_strength: float | None = math.inf, compiles: bool = True, **fixed: Any
) -> Callable[[Callable[..., tf.Tensor]], Callable[..., tf.Tensor]]:
    """Decorates a function that is an op, with the properties of `Op`.

    Args:
        name: by which a policy names it.
        max_strength: the largest strength, or None for an op that has no strength.
        compiles: whether XLA compiles it.
        **fixed: arguments of the function that this name stands for.

    Returns:
        The decorator, which returns the function as it is.
    """

    def register(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        named = functools.partial(function, **fixed) if fixed else function
        OPS[name] = Op(name, named, max_strength, compiles)
        return function

    return register
