"""Changes between the recipe of a checkpoint and the recipe that resumes from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simclr_tf.renamed import name_of_today

# Recipe parameters that may change when a run resumes: they decide how often it reports and saves,
# where data lie, how sums are grouped, and what a checkpoint replaces, but not what is learnt.
_HARMLESS = re.compile(
    r"\.(steps_per_loop|checkpoint_every_(steps|minutes)|keep_checkpoints|profile_steps|augment_on"
    r"|precision)$"
    r"|^(data\.(source|cache|eval_split|follow_links)|strategy\.cpu_replicas|nt_xent\.block_size"
    r"|resnet\.remat|keras_application\.weights)$"
    r"|^(run|quickstart)\."
)


def is_harmless(parameter: str) -> bool:
    """Returns whether a parameter may change when a run resumes."""
    return _HARMLESS.search(parameter) is not None


def recipe_changes(
    saved: Mapping[str, str], now: Mapping[str, str], defaults: Mapping[str, str | None]
) -> Sequence[tuple[str, str]]:
    """Returns the parameters that differ between two recipes, with both values in words.

    A parameter missing from one recipe has its default of this version there. So a parameter that
    is newer than the checkpoint is unchanged until somebody sets it. A parameter that this version
    no longer has is a change, since nothing here says what replaces it; whoever removes a parameter
    that had no effect on what is learnt adds it to the harmless ones.

    Args:
      saved: the recipe of the checkpoint as gin writes it: 'scope/function.parameter' -> text.
      now: the recipe that resumes.
      defaults: of every parameter of this version: 'function.parameter' -> text, or None if it has
        no default.
    """
    saved, now = ({name_of_today(n): text for n, text in r.items()} for r in (saved, now))
    changes = []
    for name in sorted({*saved, *now}):
        default = defaults.get(_unscoped(name))
        if _value(saved.get(name, default)) != _value(now.get(name, default)):
            gone = name not in now and _unscoped(name) not in defaults
            today = "not a parameter of this version" if gone else f"{now.get(name, 'not set')} now"
            changes.append((name, f"{saved.get(name, 'not set')} in the checkpoint, {today}"))
    return changes


def _unscoped(name: str) -> str:
    return name.rpartition("/")[2]


def _value(text: str | None) -> Any:
    """Returns the value of gin's text, such that 10 equals 10.0 and a list the tuple of its items.

    References to functions are compared as they are written.
    """

    def plain(value: Any) -> Any:
        return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value

    try:
        return plain(ast.literal_eval(text or "None"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
