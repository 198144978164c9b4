"""Prints the results of many runs side by side, one column per folder.

    python tools/results_table.py runs/untrained runs/simclr runs/supervised [--format=csv]
    python tools/results_table.py runs/* --sort=rankme
    python tools/results_table.py runs/* --correlate=rankme,linear_eval

Each folder is a run's --model_dir. A row is a number from one of its results/*.json: a share
(accuracy, chance) in per cent, or a measure that needs no labels; if one file has several, such as
for h and z, each has a row of its own. Further rows say which images each result was trained and
tested on.

--sort places the runs by a row, the highest number first, and --correlate prints Spearman's rank
correlation of two rows instead of the table. Both name a row by some of its words: "rankme" is
"label_free rankme", and "linear_eval" is the first row of that job, its top-1.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping

import command_line  # beside this file

from simclr_tf.errors import RequestError

Column = dict[str, float | str]
_LAYERS = ("representation", "projection", "untrained_representation", "untrained_projection")
SHARES = ("top1", "top5", "mean_per_class", *_LAYERS, "chance")
MEASURES = ("rankme", "alpha_req", "alignment", "uniformity")
_MIN_RUNS = 3


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


def by_row(columns: Mapping[str, Column], row: str) -> dict[str, Column]:
    """Orders the runs by a row, the highest number first, those without one last."""
    return dict(sorted(columns.items(), key=lambda run: -_number(run[1], row, -math.inf)))


def correlation(columns: Mapping[str, Column], first: str, second: str) -> str:
    """Returns Spearman's rank correlation of two rows over the runs that have both, in words.

    Raises:
      RequestError: there are too few such runs, or all have the same number.
    """
    from scipy.stats import spearmanr

    pairs = [[_number(column, row) for row in (first, second)] for column in columns.values()]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(pairs) < _MIN_RUNS or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        raise RequestError(
            f"A correlation needs at least {_MIN_RUNS} runs with both numbers, which must differ. "
            f"Received: {len(pairs)} with {first!r} and {second!r}: {pairs}."
        )
    value = spearmanr(*zip(*pairs, strict=True)).statistic
    return (
        f"Spearman's rank correlation of {first} and {second} over {len(pairs)} runs: {value:.3f}"
    )


def table(columns: Mapping[str, Column]) -> list[list[str]]:
    """Returns header and rows; a number that a run lacks is left empty."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    body = [
        [row, *(_cell(row, column.get(row, "")) for column in columns.values())] for row in rows
    ]
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


def _number(column: Column, row: str, missing: float = math.nan) -> float:
    value = column.get(row)
    return value if isinstance(value, float) and math.isfinite(value) else missing


def _cell(row: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{100 * value:.2f} %" if row.split()[-1] in SHARES else f"{value:.4g}"


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


def _two(text: str) -> list[str]:
    names = text.split(",")
    if len(names) != 2:
        raise argparse.ArgumentTypeError(f"two rows with a comma between them, not {text!r}")
    return names


@command_line.refusing
def main(argv: list[str]) -> int:
    """Prints the table, and returns the program's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=command_line.path, metavar="DIR")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    parser.add_argument("--sort", metavar="ROW")
    parser.add_argument("--correlate", type=_two, metavar="ROW,ROW")
    arguments = parser.parse_args(argv)
    columns = {str(folder): read_column(folder) for folder in arguments.folders}
    if arguments.correlate:
        print(correlation(columns, *(row_named(name, columns) for name in arguments.correlate)))
        return 0
    if arguments.sort:
        columns = by_row(columns, row_named(arguments.sort, columns))
    print({"markdown": as_markdown, "csv": as_csv}[arguments.format](table(columns)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
