"""Runs the cells of a study one after another, beside other processes that do the same."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Protocol

from simclr_tf.errors import PreemptedError, RequestError, RunError
from simclr_tf.evaluation.numbers import cell as as_text
from simclr_tf.report.curves import duration
from simclr_tf.study import commands
from simclr_tf.study.budget import Budget, Forecast
from simclr_tf.study.cells import Cell, Study
from simclr_tf.study.claims import Claim, Claims
from simclr_tf.study.processes import Processes
from simclr_tf.study.record import Record, Status

_POLL = 5.0  # seconds between two looks at cells of other processes


class Stop(Protocol):
    """Says whether a signal has asked this process to stop."""

    requested: bool


@dataclasses.dataclass
class _Kept:
    """Looks after one running cell, and why it had to stop."""

    claim: Claim
    stop: Stop
    budget: Budget
    cell: Cell
    forecast: Forecast
    lost: bool = False
    too_long: bool = False

    @property
    def stopped(self) -> bool:
        """Whether the cell's run must not go on."""
        return self.lost or self.too_long or self.stop.requested

    def __call__(self) -> bool:
        """Returns whether the cell's run may go on."""
        self.lost = not self.claim.beat()
        if self.budget.estimate(self.cell) is None:
            self._look_ahead()
        return not self.stopped

    def _look_ahead(self) -> None:
        """Estimates the first cell by its first steps."""
        rest = self.forecast.seconds()
        if not rest:
            return
        self.budget.learn(self.cell, rest)
        self.too_long = not self.budget.fits(self.cell)
        left = duration(max(0.0, self.budget.left()))
        print(
            f"  by its first steps, training ends in {duration(rest)}, and evaluations follow"
            + (f": more than the {left} left, so it is saved and stops" if self.too_long else ""),
            flush=True,
        )


class Session:
    """One process's work on a study, in the order of its cells.

    A cell that is finished is kept. One that was broken off goes on; one that has failed is tried
    once more, by one of the processes. Cells of other processes are waited for, and taken over
    should their process be gone.

    Args:
      study: the definition.
      cells: the share of this process.
      budget: the time that it may take.
      stop: tells when to stop.
      processes: runs the commands.
    """

    def __init__(
        self,
        study: Study,
        cells: Sequence[Cell],
        *,
        budget: Budget,
        stop: Stop,
        processes: Processes,
    ):
        self.study, self.cells, self.budget = study, cells, budget
        self.stop, self.processes = stop, processes
        self.record = Record(study)
        self.claims = Claims(self.record.status_folder)
        self.starts = {cell: self.record.status(cell).starts for cell in cells}
        self.waiting = collections.deque(c for c in cells if not self._is_done(c))

    def run(self) -> list[Cell]:
        """Runs the cells, and returns those for which no time was left.

        Raises:
          PreemptedError: this process was told to stop; the running cell has saved.
        """
        done = len(self.cells) - len(self.waiting)
        print(f"{done} of {len(self.cells)} cells are finished", flush=True)
        if self.waiting:
            print(self.budget.plan(self.waiting), flush=True)
        idle, said = 0, False
        while self.waiting and any(map(self.budget.fits, self.waiting)):
            cell = self.waiting.popleft()
            if self._is_done(cell):
                continue
            self.waiting.append(cell)
            if self.budget.fits(cell) and self._try(cell):
                idle = 0
                continue
            idle += 1
            if idle >= len(self.waiting):
                if not said:
                    print(f"waiting for {len(self.waiting)} cells of other processes", flush=True)
                said, idle = True, 0
                self._sleep()
        return [cell for cell in self.cells if cell in self.waiting and not self._is_done(cell)]

    def _is_done(self, cell: Cell) -> bool:
        """Returns whether nothing is left to do, now or by this start of the study."""
        status = self.record.status(cell)
        if self.record.is_finished(cell):
            self.budget.learn(cell, status.seconds)
            return True
        return status.failed is not None and status.starts != self.starts[cell]

    def _try(self, cell: Cell) -> bool:
        """Runs a cell if no other process does; returns whether it was this process's turn."""
        claim = self.claims.take(cell.name)
        if claim is None:
            return False
        try:
            if not self._is_done(cell):  # by a process that has just given it back
                self._run(cell, claim)
        finally:
            claim.give_back()
        return True

    def _run(self, cell: Cell, claim: Claim) -> None:
        place = f"cell {self.cells.index(cell) + 1} of {len(self.cells)}, {cell.name}"
        print(f"{place}\n  {commands.line(self.study, cell)}", flush=True)
        began, before = self.budget.clock(), self.record.status(cell)
        run = pathlib.Path(commands.folder(self.study, cell))
        kept = _Kept(claim, self.stop, self.budget, cell, Forecast(run, self.budget.clock))
        self.record.note(cell, dataclasses.replace(before, starts=before.starts + 1, failed=None))
        failed = self._commands(cell, kept)
        if kept.lost:
            print("  another process has taken this cell over", flush=True)
            return
        seconds = before.seconds + self.budget.clock() - began
        self.record.note(cell, Status(seconds, before.starts + 1, failed))
        if self.stop.requested:
            raise PreemptedError(
                f"Stopped on request in {place}, which has saved. The same command goes on."
            )
        if kept.too_long:
            return
        if failed is None:
            self.budget.learn(cell, seconds)
        print(f"  {failed or self._said(cell)} ({duration(seconds)})", flush=True)
        left = [other for other in self.waiting if not self._is_done(other)]
        if left:
            print(f"  left: {self.budget.plan(left)}", flush=True)

    def _commands(self, cell: Cell, kept: _Kept) -> str | None:
        """Runs the commands of a cell that lack a result; returns the message of a failure."""
        log = self.record.path(cell, ".log")
        for job in (self.study.job, *self.study.evaluations):
            if job in self.study.evaluations and self.record.has_result(cell, job):
                continue
            start = log.stat().st_size if log.exists() else 0
            code = self.processes.run(
                commands.arguments(self.study, cell, job),
                log=log,
                claim=kept.claim.path,
                keep=kept,
            )
            if kept.stopped:
                return None
            if code == PreemptedError.exit_code:  # a device or a worker is gone
                raise PreemptedError(f"{_message(log, start, code)} ({cell.name}, {log})")
            if code:
                return f"failed in {job}: {_message(log, start, code)}"
        return None

    def _said(self, cell: Cell) -> str:
        try:
            row, value = self.record.measured(cell)
        except (RequestError, TypeError):
            return f"ended without a number {self.study.measure!r}"
        return f"{row} {as_text(row, value)}"

    def _sleep(self) -> None:
        for _ in range(int(_POLL)):
            if self.stop.requested:
                raise PreemptedError("Stopped on request. The same command goes on.")
            time.sleep(1.0)


def failures(record: Record, cells: Sequence[Cell]) -> RunError | None:
    """Returns the error with which a study ends whose cells have failed, if some have."""
    failed = {cell.name: record.status(cell).failed for cell in cells}
    failed = {name: message for name, message in failed.items() if message}
    if not failed:
        return None
    lines = [f"{name} {message}" for name, message in failed.items()]
    return RunError(
        f"{len(failed)} of {len(cells)} cells failed, and the same command tries them once more. "
        f"Their output is in {record.status_folder}.\n" + "\n".join(lines)
    )


def _message(log: pathlib.Path, start: int, code: int) -> str:
    """Returns the message with which a command ended: its error, or its last line."""
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    _, found, error = text.rpartition("error: ")
    lines = (error if found else text).strip().splitlines()
    said = (lines[0] if found else lines[-1]) if lines else "no output"
    return said if code > 0 else f"ended by signal {-code}, after: {said}"
