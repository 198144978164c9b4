"""The plain commands of a cell, and their check before the first one runs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence

import gin

from simclr_tf import config, jobs
from simclr_tf.errors import RequestError
from simclr_tf.study.cells import Cell, Study

# Bindings of the study itself, such as study.minutes, are none of a cell's business.
_OF_THE_STUDY = re.compile(r"--gin_bindings=\s*study\.")
_FILE, _BINDING = "--gin_file=", "--gin_bindings="


def shared(arguments: Sequence[str]) -> tuple[str, ...]:
    """Returns the flags of the study's command line that its cells have too."""
    return tuple(argument for argument in arguments if not _OF_THE_STUDY.match(argument))


def arguments(study: Study, cell: Cell, job: str) -> list[str]:
    """Returns the arguments of `simclr_tf.run` for a job of a cell."""
    return [
        *study.arguments,
        *(f"{_FILE}{recipe}" for recipe in cell.recipes),
        *(f"{_BINDING}{binding}" for binding in cell.bindings),
        f"--model_dir={folder(study, cell)}",
        f"--job={job}",
    ]


def folder(study: Study, cell: Cell) -> str:
    """Returns the folder of a cell's run."""
    return os.path.join(study.folder, "cells", cell.name)


def line(study: Study, cell: Cell) -> str:
    """Returns a shell's line that trains and evaluates a cell as the study does."""
    # A program that adds jobs or modules starts runs itself, see docs/extending.md.
    extended = jobs.EXTENSIONS or jobs.added_modules()
    program = ["python", sys.argv[0]] if extended else ["python", "-m", "simclr_tf.run"]
    return " && ".join(
        shlex.join([*program, *arguments(study, cell, job)])
        for job in (study.job, *study.evaluations)
    )


def check(study: Study) -> None:
    """Checks the recipe of every cell and job as the command line does.

    gin's bindings, which the study itself has received before, are none afterwards.

    Raises:
      RequestError: a binding names nothing or has a wrong value; the message names the cell.
    """
    files, bindings = (
        [a.removeprefix(flag) for a in study.arguments if a.startswith(flag)]
        for flag in (_FILE, _BINDING)
    )
    try:
        for cell in {cell.labels: cell for cell in study.cells()}.values():
            for job in (study.job, *study.evaluations):
                recipes = map(os.path.expanduser, [*files, *cell.recipes])
                config.load([*recipes], [*bindings, *cell.bindings])
                jobs.checked(job)
    except RequestError as error:
        raise RequestError(f"The cell {cell.name} cannot run. {error}") from error
    finally:
        gin.clear_config()
