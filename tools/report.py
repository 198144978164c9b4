"""Writes the report of a run, or of several side by side, into one HTML file.

    python tools/report.py MODEL_DIR [MODEL_DIR...] [--output=report.html]

The file is self-contained and uses no network. It may be written at any time: a run that is still
running, or was cut off, is shown up to its last report. One run's report is MODEL_DIR/report.html,
that of several report.html, unless --output names another file.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import sys
from collections.abc import Sequence

import command_line  # beside this file

from simclr_tf.errors import RequestError
from simclr_tf.report.page import write_page
from simclr_tf.report.reading import read_runs


@command_line.refusing
def main(argv: Sequence[str]) -> int:
    """Writes the report, and returns the program's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=command_line.path, metavar="MODEL_DIR")
    parser.add_argument("--output", type=command_line.path, metavar="FILE")
    arguments = parser.parse_args(argv)
    folders = arguments.folders
    output = arguments.output or (folders[0] if len(folders) == 1 else pathlib.Path()) / (
        "report.html"
    )
    page = write_page(read_runs(folders), datetime.datetime.now(datetime.timezone.utc))
    _write(output, page)
    print(f"{output}: {len(page) / 2**20:.2f} MiB")
    return 0


def _write(output: pathlib.Path, page: bytes) -> None:
    """Writes the page at once: a reader sees the old file or the new one, never a part."""
    if output.is_dir():
        raise RequestError(f"--output must be a file. Received: {output}, which is a folder.")
    partial = output.with_name(f"{output.name}.partial")
    try:
        partial.write_bytes(page)
        os.replace(partial, output)
    except OSError as error:
        raise RequestError(
            f"The report must be written to a file in a folder that is there. Received: {error}."
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
