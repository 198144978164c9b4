"""Reads the numbers of results/*.json, compares them over runs, and writes tables.

Needs no TensorFlow, so that tools start at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from simclr_tf.errors import RequestError

Column = dict[str, float | str]
_LAYERS = ("representation", "projection", "untrained_representation", "untrained_projection")
SHARES = ("top1", "top5", "mean_per_class", *_LAYERS, "chance")
MEASURES = ("rankme", "alpha_req", "alignment", "uniformity")
MIN_RUNS = 3  # of a correlation


def read_column(folder: pathlib.Path) -> Column:
    """Maps rows to numbers, and to what is said of the data, for all results of one run.

    Raises:
      RequestError: the folder holds no result, or one that is not in a job's format.
    """
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise RequestError(
            f"Each folder must be a run's --model_dir with results/*.json. Received: {folder}, "
            "which has none."
        )
    column: Column = {}
    for file in files:
        try:
            result = json.loads(file.read_text())
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{file} must be JSON. It is not: {error}.") from error
        if not isinstance(result, dict) or not isinstance(result.get("numbers", {}), dict):
            raise RequestError(f"{file} must hold an object with numbers. It holds something else.")
        protocol = _protocol(file.stem, result)
        for name, value in _flatten(result.get("numbers", {})):
            column[f"{protocol} {name}"] = float(value)
        for use, split in _splits(result):
            column[f"{protocol} {use}"] = split
    return column


def row_named(name: str, columns: Mapping[str, Column]) -> str:
    """Returns the row of this name, or the first one that has all of the name's words.

    Raises:
      RequestError: there is none.
    """
    rows = [r for column in columns.values() for r, v in column.items() if isinstance(v, float)]
    if name in rows:
        return name
    found = [row for row in rows if name.split() and set(name.split()) <= set(row.split())]
    if not found:
        raise RequestError(
            f"A row must be named by some of its words. Received: {name!r}. There are: "
            f"{', '.join(dict.fromkeys(rows)) or 'no numbers'}."
        )
    return found[0]


def number(column: Column, row: str, missing: float = math.nan) -> float:
    """Returns a finite number of a run, or `missing`."""
    value = column.get(row)
    return value if isinstance(value, float) and math.isfinite(value) else missing


def rank_correlation(pairs: Sequence[Sequence[float]]) -> float | None:
    """Returns Spearman's rank correlation; None for too few pairs, or a side of equal numbers."""
    from scipy.stats import spearmanr

    if len(pairs) < MIN_RUNS or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def cell(row: str, value: float | str) -> str:
    """Returns a table's text: a share in per cent."""
    if isinstance(value, str):
        return value
    return f"{100 * value:.2f} %" if row.split()[-1] in SHARES else f"{value:.4g}"


def as_markdown(rows: list[list[str]]) -> str:
    """Returns the rows as a Markdown table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def as_csv(rows: list[list[str]]) -> str:
    """Returns the rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


def _protocol(job: str, result: dict) -> str:
    """Returns the job, and what distinguishes its protocol from others of the same job."""
    share = result.get("label_share", 1.0)
    part = f"{share:.3g} of labels" if isinstance(share, float) and share != 1.0 else ""
    words = [job, str(result.get("preset", "")), part]
    return " ".join(w for w in words if w)


def _splits(result: dict) -> Iterator[tuple[str, str]]:
    splits = result.get("splits")
    for use, split in splits.items() if isinstance(splits, dict) else ():
        if isinstance(split, dict):
            words = (split.get("source"), split.get("split"), f"{split.get('images')} images")
            yield use, ", ".join(map(str, words))


def _flatten(numbers: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name} ")
        elif name in SHARES + MEASURES and isinstance(value, (int, float)):
            yield f"{prefix}{name}", value
