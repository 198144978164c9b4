"""The figure of a study, and beside it the same figure of the published numbers."""

from __future__ import annotations

import os

import numpy as np

from simclr_tf import plotting
from simclr_tf.study.cells import Study
from simclr_tf.study.table import Row, Table


def draw(study: Study, table: Table) -> str:
    """Writes `figures/study.png` and returns its path; what is missing yet stays empty."""
    published = any(row.published is not None for row in table.rows)
    columns = 2 if published else 1
    figure, axes = plotting.subplots(rows=1, columns=columns, cell=5.0)
    drawn = {"heat_map": _heat_map, "bars": _bars, "lines": _lines}[study.figure]
    unit = f" [{table.unit}]" if table.unit else ""
    for axis, ours in zip(axes[0], (True, False), strict=False):
        drawn(axis, study, table, ours)
        axis.set_title(plotting.plain(f"{table.measure}{unit}" if ours else "published"))
    return plotting.save(figure, os.path.join(study.folder, "figures", "study.png"))


def _heat_map(axis, study: Study, table: Table, ours: bool) -> None:
    """Draws the first axis downward and the second to the right."""
    (down, rows), (right, columns) = ((name, list(v)) for name, v in study.axes.items())
    grid = np.full((len(rows), len(columns)), np.nan)
    for row in table.rows:
        place = rows.index(row.labels[0]), columns.index(row.labels[1])
        grid[place] = _value(row, ours)
        if study.symmetric:
            grid[place[::-1]] = grid[place]
    axis.imshow(grid, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(columns)), map(plotting.plain, columns), rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), map(plotting.plain, rows))
    axis.set(xlabel=plotting.plain(right), ylabel=plotting.plain(down))
    middle = np.nanmean(grid) if np.isfinite(grid).any() else 0.0
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axis.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)


def _bars(axis, study: Study, table: Table, ours: bool) -> None:
    """Draws a group of bars for each label of the first axis; dots are seeds."""
    first, others = _series(study)
    width = 0.8 / len(others)
    for place, other in enumerate(others):
        found = _rows(table, first, other)
        x = np.arange(len(first)) + (place - (len(others) - 1) / 2) * width
        heights = [_value(row, ours) for row in found]
        errors = [_spread(row, ours) for row in found]
        axis.bar(x, heights, width, yerr=errors, capsize=3, label=_label(other))
        if ours:
            for at, row in zip(x, found, strict=True):
                values = row.values if row else ()
                axis.plot([at] * len(values), values, "k.", markersize=3)
    _frame(axis, study, first, others)


def _lines(axis, study: Study, table: Table, ours: bool) -> None:
    """Draws the first axis to the right, and a line for each combination of the others."""
    first, others = _series(study)
    for other in others:
        found = _rows(table, first, other)
        heights = [_value(row, ours) for row in found]
        errors = [_spread(row, ours) for row in found]
        axis.errorbar(
            range(len(first)), heights, errors, marker="o", capsize=3, label=_label(other)
        )
    _frame(axis, study, first, others)


def _frame(axis, study: Study, first: list[str], others: list[tuple[str, ...]]) -> None:
    axis.set_xticks(range(len(first)), map(plotting.plain, first))
    axis.set(xlim=(-0.5, len(first) - 0.5), xlabel=plotting.plain(next(iter(study.axes))))
    axis.grid(alpha=0.3, axis="y")
    if others != [()]:
        axis.legend(title=plotting.plain(", ".join(list(study.axes)[1:])), fontsize=8)


def _series(study: Study) -> tuple[list[str], list[tuple[str, ...]]]:
    """Returns the labels of the first axis, and all combinations of those of the others."""
    found = study.combinations()
    return list(dict.fromkeys(f[0] for f in found)), list(dict.fromkeys(f[1:] for f in found))


def _rows(table: Table, first: list[str], other: tuple[str, ...]) -> list[Row | None]:
    rows = {row.labels: row for row in table.rows}
    return [rows.get((label, *other)) for label in first]


def _value(row: Row | None, ours: bool) -> float:
    value = None if row is None else row.mean if ours else row.published
    return np.nan if value is None else value


def _spread(row: Row | None, ours: bool) -> float:
    return row.spread or 0.0 if row is not None and ours else 0.0


def _label(other: tuple[str, ...]) -> str:
    return plotting.plain(", ".join(other))
