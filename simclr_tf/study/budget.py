"""How long cells take, and which of them fit into the minutes that a study may take."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

from simclr_tf.report.curves import duration
from simclr_tf.report.files import number, read_lines, read_object
from simclr_tf.study.cells import Cell


class Budget:
    """The time that is left, and estimates from cells that are finished.

    Args:
      minutes: what the study may take from now on; None for no limit.
      clock: seconds that only grow.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._end = None if minutes is None else clock() + 60 * minutes
        self._took: dict[Cell, float] = {}

    def learn(self, cell: Cell, seconds: float) -> None:
        """Notes how long a finished cell took."""
        if seconds > 0:
            self._took[cell] = seconds

    def left(self) -> float:
        """Returns the seconds that are left."""
        return float("inf") if self._end is None else self._end - self.clock()

    def estimate(self, cell: Cell) -> float | None:
        """Returns the seconds of a cell: as the finished ones that are most like it, on average."""
        alike: dict[int, list[float]] = {}
        for other, seconds in self._took.items():
            same = sum(a == b for a, b in zip(cell.labels, other.labels, strict=True))
            alike.setdefault(same, []).append(seconds)
        return statistics.mean(alike[max(alike)]) if alike else None

    def fits(self, cell: Cell) -> bool:
        """Returns whether a cell would end in time; one of unknown length would if time is left."""
        return (self.estimate(cell) or 0.0) < self.left()

    def plan(self, cells: Sequence[Cell]) -> str:
        """Says in words what fits of the cells that are to run."""
        times = [self.estimate(cell) for cell in cells]
        if None in times:
            return "no cell is finished, so the first one's steps will tell how long one takes"
        number = "1 cell takes" if len(cells) == 1 else f"{len(cells)} cells take"
        text = f"{number} about {duration(sum(times))}"
        if self._end is None:
            return text
        spent, fitting = 0.0, 0
        for seconds in times:
            if spent + seconds < self.left():
                spent += seconds
                fitting += 1
        return f"{text}; the {duration(max(0, self.left()))} left have room for {fitting}"


class Forecast:
    """Tells from the first reports of a run how long the rest of its training takes."""

    def __init__(self, run: pathlib.Path, clock: Callable[[], float] = time.monotonic):
        self._run, self._clock = run, clock
        self._before = self._step()  # reports of an earlier start say nothing about this one
        self._first: tuple[float, float] | None = None  # step of a report, and when it was seen

    def seconds(self) -> float | None:
        """Returns the seconds until the last step; None before two new reports are seen."""
        step, total = self._step(), number(read_object(self._run / "run.json").get("total_steps"))
        if step is None or total is None or step == self._before:
            return None
        now = self._clock()
        if self._first is None:
            self._first = step, now
        first, since = self._first
        return None if step == first else (total - step) * (now - since) / (step - first)

    def _step(self) -> float | None:
        reports = list(read_lines(self._run / "metrics.jsonl"))
        return number(reports[-1].get("step")) if reports else None
