"""The settings of a config.gin as text; nothing is evaluated."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BINDING = re.compile(r"^([A-Za-z_][\w./-]*)\s*=\s*(.*)$")


def settings(text: str) -> dict[str, str]:
    """Returns the bindings of a gin file, name -> value on one line, in the file's order."""
    found: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        binding = _BINDING.match(line)
        if binding:
            name, value = binding[1], binding[2]
            found[name] = _unbroken(value)
        elif not line.strip() or line.lstrip().startswith("#"):
            name = None
        elif name is not None:
            found[name] = f"{found[name]} {_unbroken(line)}".strip()
    return found


def differences(recipes: Sequence[dict[str, str]]) -> list[tuple[str, list[str | None]]]:
    """Returns the settings that differ between recipes, each with its value in every recipe."""
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    rows = [(name, [recipe.get(name) for recipe in recipes]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _unbroken(line: str) -> str:
    return line.strip().removesuffix("\\").strip()
