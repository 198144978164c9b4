"""What has changed between the recipe of a checkpoint and the one that goes on from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Parameters of recipes that a run may change when it goes on: they decide how often it is looked
# at, where data lie, and how sums are grouped, but not what is learnt.
_HARMLESS = re.compile(
    r"\.(steps_per_loop|checkpoint_every_(steps|minutes)|keep_checkpoints|profile_steps|augment_on"
    r"|precision)$"
    r"|^(data\.(source|cache|eval_split)|strategy\.cpu_replicas|nt_xent\.block_size|resnet\.remat)$"
    r"|^(run|quickstart)\."
)


def is_harmless(parameter: str) -> bool:
    """Whether a parameter may change when a run goes on."""
    return _HARMLESS.search(parameter) is not None


def recipe_changes(saved: Mapping[str, str], now: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """The parameters that differ, and both values in words, of two recipes as gin writes them."""
    return [
        (name, f"{saved.get(name, 'not set')} in the checkpoint, {now.get(name, 'not set')} now")
        for name in sorted({*saved, *now})
        if _value(saved.get(name)) != _value(now.get(name))
    ]


def _value(text: str | None) -> Any:
    """The value that gin's text stands for, such that 10 is 10.0 and a list the tuple of its items.

    References to functions are compared as they are written.
    """

    def plain(value: Any) -> Any:
        return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value

    try:
        return plain(ast.literal_eval(text or "None"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
