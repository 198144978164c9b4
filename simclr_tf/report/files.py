"""Reads files of a run that may be missing, cut short, or malformed.

`training.reporting.read_metrics` reads metrics.jsonl by the same rule, through TensorFlow's file
systems; a report reads local files, and is done before TensorFlow would have been imported.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 20


def read_text(path: pathlib.Path) -> str | None:
    """Returns a small file's text; None if it is missing or larger than `MAX_BYTES`."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Returns a JSON file's object; an empty one if the file holds none."""
    found = _parsed(read_text(path) or "")
    return found if isinstance(found, dict) else {}


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON lines; skips a line cut short by a kill."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            found = _parsed(line)
            if isinstance(found, dict):
                yield found


def mapping(value: Any) -> dict[str, Any]:
    """Returns `value` if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Returns the objects in `value` if it is a list, otherwise none."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of an object and of nested objects, by names such as `simclr top1`."""
    for name, inner in mapping(value).items():
        if isinstance(inner, dict):
            yield from flat(inner, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", inner


def number(value: Any) -> float | None:
    """Returns a JSON number as float, infinite beyond its range; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if _is_flat_enough(found) else None


def _is_flat_enough(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Returns whether `value` is flat enough for recursive functions that traverse or print it."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inner = [part for part in parts if isinstance(part, (dict, list))]
    return not inner or (depth > 0 and all(_is_flat_enough(part, depth - 1) for part in inner))
