"""Tests the project on the oldest and newest Python, TensorFlow and Keras that it supports.

    python tools/compatibility.py --folder=DIR --python=python3.10 --python=python3.13 \\
        -- -q -m "not slow"

Each environment of the list below whose Python is given by `--python` is made in DIR, with the
project and its extras `cpu` and `test`. The test suite runs in it, with the arguments behind `--`,
and a tiny network is trained in it. Then every environment reads the files that each one wrote: the
checkpoint, the SavedModel in plain TensorFlow, the SavedModel as an encoder of Keras; and the
checkpoint at half of the steps, from which it trains to the end.

It prints three tables: one of the tests, and two of the largest difference from the outputs that
the writer computed itself, in parts of the largest output, after reading and after more training.

Results in DIR are kept, so the same command resumes where it was stopped. To repeat a part of an
environment, delete its tests.xml, or its written.json, or all of its folder. Exits with 0 if all
tests passed and all outputs agree, with 1 if not, and with 2 if the request is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import command_line  # beside this file
from compatibility_environments import Environment, StepError, plan  # beside this file

# Versions of TensorFlow sum in different orders, and four training steps amplify that.
TOLERANCES = {"read": 1e-5, "resumed": 1e-3}
CAPTIONS = {
    "read": "Outputs of what the row wrote and the column read",
    "resumed": "Outputs of what the row began to train and the column trained to the end",
}


def test_rows(
    environments: Sequence[Environment], arguments: Sequence[str]
) -> Iterator[tuple[bool, list]]:
    """Installs and tests; returns whether all passed, and the rows of the table."""
    for environment in environments:
        versions = environment.versions
        name = [versions.python, versions.tensorflow, versions.keras or "newest"]
        try:
            found = environment.install()
            name = [found["python"], found["tensorflow"], found["keras"]]
            counted = environment.test(arguments)
            yield counted["failed"] == 0 < counted["passed"], [*name, *counted.values()]
        except StepError as error:
            print(f"{versions}: {error}", flush=True)
            yield False, [*name, 0, "not run", 0]


def read_cells(
    environments: Sequence[Environment],
) -> Iterator[tuple[Environment, dict[str, list[str]]]]:
    """Lets every environment read the files of each one, writer by writer.

    Returns:
      The writer, and the cells of the tables for each reader.
    """
    for writer in environments:
        cells = {kind: [] for kind in TOLERANCES}
        for reader in environments:
            try:
                differences = reader.read(writer)
            except (StepError, OSError, ValueError) as error:
                print(f"{reader.versions}: {error}", flush=True)
                differences = {}
            for kind, tolerance in TOLERANCES.items():
                cells[kind].append(cell(differences.get(kind), tolerance))
        yield writer, cells


def cell(value: float | None, tolerance: float) -> str:
    """Formats a difference for the tables; in bold type if it is a failure."""
    if value is None:
        return "**failed**"
    return f"{value:.1e}" if value <= tolerance else f"**{value:.1e}**"


def as_markdown(rows: Sequence[Sequence[object]]) -> str:
    """Formats rows as a table; the first row is the header."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| ---" + " | ---:" * (len(rows[0]) - 1) + " |", *lines[1:]])


@command_line.refusing
def main(argv: Sequence[str]) -> int:
    """Makes, tests and compares the rest, prints the tables, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, type=command_line.path, metavar="DIR")
    parser.add_argument(
        "--python",
        required=True,
        action="append",
        type=command_line.address,
        metavar="INTERPRETER",
    )
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind --")
    arguments = parser.parse_args(argv)
    try:
        environments = plan(arguments.python, arguments.folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return command_line.WRONG_REQUEST
    tested = list(test_rows(environments, arguments.pytest))
    names = [str(environment.versions) for environment in environments]
    written = list(read_cells(environments))
    header = ["Python", "TensorFlow", "Keras", "passed", "failed", "skipped"]
    tables = [as_markdown([header, *(row for _, row in tested)])]
    for kind, caption in CAPTIONS.items():
        rows = [[str(writer.versions), *cells[kind]] for writer, cells in written]
        tables.append(
            f"{caption}:\n\n" + as_markdown([["Python / TensorFlow / Keras", *names], *rows])
        )
    print("\n" + "\n\n".join(tables))
    return int(not all(good for good, _ in tested) or any("**" in table for table in tables))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
