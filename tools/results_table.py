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
import math
import sys
from collections.abc import Mapping

import command_line  # beside this file

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.numbers import (
    MIN_RUNS,
    Column,
    as_csv,
    as_markdown,
    cell,
    number,
    rank_correlation,
    read_column,
    row_named,
)


def by_row(columns: Mapping[str, Column], row: str) -> dict[str, Column]:
    """Orders the runs by a row, the highest number first, those without one last."""
    return dict(sorted(columns.items(), key=lambda run: -number(run[1], row, -math.inf)))


def correlation(columns: Mapping[str, Column], first: str, second: str) -> str:
    """Returns Spearman's rank correlation of two rows over the runs that have both, in words.

    Raises:
      RequestError: there are too few such runs, or all have the same number.
    """
    pairs = [[number(column, row) for row in (first, second)] for column in columns.values()]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    value = rank_correlation(pairs)
    if value is None:
        raise RequestError(
            f"A correlation needs at least {MIN_RUNS} runs with both numbers, which must differ. "
            f"Received: {len(pairs)} with {first!r} and {second!r}: {pairs}."
        )
    return (
        f"Spearman's rank correlation of {first} and {second} over {len(pairs)} runs: {value:.3f}"
    )


def table(columns: Mapping[str, Column]) -> list[list[str]]:
    """Returns header and rows; a number that a run lacks is left empty."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    body = [[row, *(cell(row, column.get(row, "")) for column in columns.values())] for row in rows]
    return [["", *columns], *body]


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
