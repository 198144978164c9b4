"""Checks a checkpoint's `manifest.json`, which may be damaged or written by other software."""

from __future__ import annotations

import re
from typing import Any

# TensorFlow's files, which lie beside the manifest.
_FILE = re.compile(r"variables[\w.-]*")


def is_manifest(content: Any) -> bool:
    """Returns whether parsed JSON has all that a manifest must have, with the right types."""
    return (
        isinstance(content, dict)
        and _is_count(content.get("step"))
        and isinstance(content.get("settings"), dict)
        and _is_recipe(content.get("recipe", {}))  # older manifests have none
        and isinstance(content.get("variables"), dict)
        and all(map(_is_group, content["variables"].values()))
        and isinstance(content.get("files"), dict)
        and all(_FILE.fullmatch(f) and _is_count(n) for f, n in content["files"].items())
    )


def _is_recipe(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(value, str) for value in content.values())


def _is_group(content: Any) -> bool:
    return isinstance(content, dict) and all(map(_is_variable, content.values()))


def _is_variable(content: Any) -> bool:
    """Checks shape and dtype."""
    return (
        isinstance(content, list)
        and len(content) == 2
        and isinstance(content[0], list)
        and all(map(_is_count, content[0]))
        and isinstance(content[1], str)
    )


def _is_count(content: Any) -> bool:
    return isinstance(content, int) and not isinstance(content, bool) and content >= 0
