"""Prints the results of many runs side by side, one column per folder.

    python tools/results_table.py runs/untrained runs/simclr runs/supervised [--format=csv]

Each folder is a run's --model_dir. A row is a share (accuracy, chance) from one of its
results/*.json, in per cent; if one file has several, such as for h and z, each has a row of its
own. Further rows say which images each result was trained and tested on.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import pathlib
import sys
from collections.abc import Iterator

import command_line  # beside this file

from simclr_tf.errors import RequestError

Column = dict[str, str]
SHARES = ("top1", "top5", "mean_per_class", "representation", "projection", "chance")


def read_column(folder: pathlib.Path) -> Column:
    """Maps rows to numbers, for all results of one run.

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
            column[f"{protocol} {name}"] = f"{100 * value:.2f} %"
        for use, split in _splits(result):
            column[f"{protocol} {use}"] = split
    return column


def table(columns: dict[str, Column]) -> list[list[str]]:
    """Returns header and rows; a number that a run lacks is left empty."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    body = [[row, *(column.get(row, "") for column in columns.values())] for row in rows]
    return [["", *columns], *body]


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
        elif name in SHARES and isinstance(value, (int, float)):
            yield f"{prefix}{name}", value


@command_line.refusing
def main(argv: list[str]) -> int:
    """Prints the table, and returns the program's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=command_line.path, metavar="DIR")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    arguments = parser.parse_args(argv)
    columns = {str(folder): read_column(folder) for folder in arguments.folders}
    print({"markdown": as_markdown, "csv": as_csv}[arguments.format](table(columns)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
