"""What a study keeps in its folder: what it is, and how far each cell is.

    study.json            its identity
    cells/<cell>/         an ordinary run
    status/<cell>.json    seconds, starts, and the message of a failure
    status/<cell>.log     the output of its commands
    status/<cell>.<n>     its claim, while a process works on it
    results/, figures/    the report

Nothing but the run's own files lies in a cell's folder, so its plain command gives the same folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.numbers import number, read_column, row_named
from simclr_tf.files import write_text
from simclr_tf.study import commands
from simclr_tf.study.cells import Cell, Study
from simclr_tf.training.failures import explain_write_errors


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a cell is.

    Attributes:
      seconds: time that it took, all starts together.
      starts: how often a study has started it.
      failed: the message of the last start, if that failed.
    """

    seconds: float = 0.0
    starts: int = 0
    failed: str | None = None


class Record:
    """Reads and writes the folder of a study."""

    def __init__(self, study: Study):
        self.study = study
        self.folder = pathlib.Path(study.folder)
        self.status_folder = self.folder / "status"

    def open(self) -> None:
        """Makes the folder, or checks that it is this study's.

        Raises:
          RequestError: it belongs to another study or to a run, or cannot be written.
        """
        folder = self.folder
        path = folder / "study.json"
        with explain_write_errors(self.study.folder):
            if path.exists():
                _compare(_read(path), self._identity(), folder)
                return
            _refuse_foreign(folder)
            self.status_folder.mkdir(parents=True, exist_ok=True)
            # Another process of the study may start at the same time, and write the same.
            partial = folder / f"study.json.{uuid.uuid4().hex}"
            partial.write_text(json.dumps(self._identity(), indent=1) + "\n")
            partial.replace(path)

    def path(self, cell: Cell, ending: str) -> pathlib.Path:
        """Returns a file about a cell."""
        return self.status_folder / f"{cell.name}{ending}"

    def status(self, cell: Cell) -> Status:
        """Returns how far a cell is, by what studies have noted."""
        found = _read(self.path(cell, ".json"))
        known = {field.name for field in dataclasses.fields(Status)}
        return Status(**{name: value for name, value in found.items() if name in known})

    def note(self, cell: Cell, status: Status) -> None:
        """Writes how far a cell is."""
        text = json.dumps(dataclasses.asdict(status), indent=1)
        write_text(str(self.path(cell, ".json")), text + "\n")

    def is_finished(self, cell: Cell) -> bool:
        """Returns whether every evaluation of a cell has its result, whoever ran its commands."""
        # watch adds lines while it runs, so its file does not say that it has ended.
        jobs = {*self.study.evaluations, self.study.measure.split()[0]} - {"watch"}
        return all(self.has_result(cell, job) for job in jobs)

    def has_result(self, cell: Cell, job: str) -> bool:
        """Returns whether a job of a cell has published its result."""
        return os.path.exists(
            os.path.join(commands.folder(self.study, cell), "results", f"{job}.json")
        )

    def measured(self, cell: Cell) -> tuple[str, float] | None:
        """Returns the compared number of a finished cell and its name; None if there is none.

        Raises:
          RequestError: results cannot be read, or none has the study's measure.
        """
        if not self.is_finished(cell):
            return None
        column = read_column(pathlib.Path(commands.folder(self.study, cell)))
        row = row_named(self.study.measure, {cell.name: column})
        value = number(column, row)
        return (row, value) if math.isfinite(value) else None

    def _identity(self) -> dict[str, Any]:
        study = self.study
        return {
            "arguments": list(_of_the_recipe(study.arguments)),
            "job": study.job,
            "evaluations": list(study.evaluations),
            "axes": {
                a: {k: list(v) for k, v in labels.items()} for a, labels in study.axes.items()
            },
            "seed_parameters": list(study.seed_parameters),
        }


def _of_the_recipe(arguments: Sequence[str]) -> Iterator[str]:
    """Yields what names the base recipe, without folders, in which hosts may differ."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag == "--gin_file":
            yield f"{flag}={os.path.basename(value)}"
        elif flag == "--gin_bindings":
            yield argument


def _refuse_foreign(folder: pathlib.Path) -> None:
    """Refuses the folder of a run; cells may lie there whose commands another scheduler has run."""
    own = ("cells", "status", "results", "figures", "study.json")
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any(not name.startswith(own) for name in found):
        raise RequestError(
            "A study's --model_dir must be its own or empty. Received: "
            f"{folder}, which has files but no study.json. Choose another --model_dir."
        )


def _compare(found: dict[str, Any], wanted: dict[str, Any], folder: pathlib.Path) -> None:
    differ = [
        f"{name} is {found.get(name)!r} there, and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differ:
        raise RequestError(
            f"A study's --model_dir must be its own. Received: {folder}, which belongs to another "
            f"study: {'; '.join(differ)}. Choose another --model_dir."
        )


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
