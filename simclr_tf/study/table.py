"""The numbers of a study: one row for each combination of labels, over its seeds."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.numbers import MIN_RUNS, SHARES, rank_correlation
from simclr_tf.study.cells import Study
from simclr_tf.study.record import Record


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of labels.

    Attributes:
      labels: a label of each axis.
      values: the measured number of each finished seed, of a share in per cent.
      published: the paper's number, or None.
      failed: how many seeds have failed.
    """

    labels: tuple[str, ...]
    values: tuple[float, ...]
    published: float | None
    failed: int

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (of a sample: n - 1); None for less than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Table:
    """All rows.

    Attributes:
      axes: names of the axes.
      measure: name of the number, and `unit`: '%' for shares, otherwise ''.
      rows: in the axes' order.
      num_seeds: seeds of each row, when all are finished.
    """

    axes: tuple[str, ...]
    measure: str
    unit: str
    rows: tuple[Row, ...]
    num_seeds: int

    def correlation(self) -> float | None:
        """Returns Spearman's rank correlation of the means with the published numbers."""
        return rank_correlation(self._pairs())

    def text(self) -> list[list[str]]:
        """Returns header and rows as text."""
        unit = f" [{self.unit}]" if self.unit else ""
        header = [*self.axes, f"{self.measure}{unit}", "± over seeds", "seeds", "published"]
        return [header, *map(self._cells, self.rows)]

    def lines(self) -> str:
        """Says in words how the order agrees with the published one."""
        value, pairs = self.correlation(), len(self._pairs())
        if not any(row.published is not None for row in self.rows):
            return "No numbers were published for this study."
        if value is None:
            return (
                f"Spearman's rank correlation with the published numbers needs {MIN_RUNS} rows "
                f"that have both numbers, which must differ. There are {pairs}."
            )
        return (
            f"Spearman's rank correlation with the published numbers, over {pairs} rows: "
            f"{value:.3f}"
        )

    def record(self) -> dict[str, Any]:
        """Returns the numbers as results/study.json holds them, shares as fractions."""
        scale = 100.0 if self.unit else 1.0
        name = self.measure.split()[-1]
        return {
            ", ".join(row.labels): {
                f"mean_{name}": row.mean / scale,
                **({} if row.spread is None else {f"spread_{name}": row.spread / scale}),
                **({} if row.published is None else {f"published_{name}": row.published / scale}),
                "seeds": len(row.values),
            }
            for row in self.rows
            if row.values
        }

    def _pairs(self) -> list[tuple[float, float]]:
        found = [(row.mean, row.published) for row in self.rows]
        return [pair for pair in found if None not in pair]

    def _cells(self, row: Row) -> list[str]:
        done = f"{len(row.values)} of {self.num_seeds}"
        numbers = ["" if n is None else f"{n:.2f}" for n in (row.mean, row.spread)]
        published = "" if row.published is None else f"{row.published:g}"
        failed = f", {row.failed} failed" if row.failed else ""
        return [*row.labels, *numbers, f"{done}{failed}", published]


def tabulate(study: Study) -> Table:
    """Reads the numbers of all finished cells.

    Raises:
      RequestError: no cell has the study's measure, though some are finished.
    """
    record, values, failed, names = Record(study), {}, {}, set()
    finished = 0
    for cell in study.cells():
        failed[cell.labels] = failed.get(cell.labels, 0) + bool(record.status(cell).failed)
        finished += record.is_finished(cell)
        measured = record.measured(cell)
        if measured is not None:
            names.add(measured[0])
            values.setdefault(cell.labels, []).append(measured[1])
    if len(names) > 1:
        raise RequestError(
            f"study.measure must name the same number in every cell. Received: {study.measure!r}, "
            f"which is {', '.join(sorted(names))}."
        )
    name = names.pop() if names else study.measure
    share = name.split()[-1] in SHARES
    scale = 100.0 if share else 1.0
    rows = [
        Row(
            labels,
            tuple(scale * value for value in values.get(labels, ())),
            study.published_number(labels),
            failed[labels],
        )
        for labels in study.combinations()
    ]
    return Table(tuple(study.axes), name, "%" if share else "", tuple(rows), len(study.seeds))
