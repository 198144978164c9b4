"""results/*.json and results/watch.jsonl as tables, one column per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from simclr_tf.report.curves import is_share, spoken, words
from simclr_tf.report.files import flat, mapping, number, objects
from simclr_tf.report.markup import Markup, folded, shortened, table, tag
from simclr_tf.report.reading import Run

MAX_ROWS = 100
_LAYERS = ("representation", "projection", "untrained_representation", "untrained_projection")
_SHARES = (*_LAYERS, "chance")
_NUMBERS = ("numbers", "chance", "table", "per_class", "protocol")


def evaluations(runs: Sequence[Run]) -> Iterator[Markup]:
    """Yields a part for every job that one of the runs has results of."""
    for job in dict.fromkeys(job for run in runs for job in run.results):
        results = [run.results.get(job, {}) for run in runs]
        if not any("numbers" in result for result in results):
            continue
        names = [run.name for run in runs]
        protocols = {str(r["protocol"]) for r in results if r.get("protocol")}
        lists = [
            folded(f"{job}: {spoken(key)}" + (f", {name}" if len(runs) > 1 else ""), _listed(rows))
            for name, result in zip(names, results, strict=True)
            for key, rows in _lists(result)
        ]
        yield tag(
            "article",
            tag("h3", job),
            *(tag("p", shortened(p, 500), class_="muted") for p in sorted(protocols)),
            _by_name(results) or _compared([_numbers(r) for r in results], names),
            *lists,
            folded("How these numbers came about", _records(results, names)),
        )


def checkpoints_watched(runs: Sequence[Run]) -> list[Markup]:
    """Returns a table per run of the results of `--job=watch`: by checkpoint, newest first."""
    tables = []
    for run in runs:
        names = list(run.watched)[:MAX_ROWS]
        rows: dict[float, dict[str, str]] = {}
        for name in names:
            curve = run.watched[name]
            for step, value in zip(curve.steps, curve.values, strict=True):
                rows.setdefault(step, {})[name] = words(value, share=is_share(name))
        newest = sorted(rows, reverse=True)[:MAX_ROWS]
        if newest:
            body = [[words(step), *(rows[step].get(name) for name in names)] for step in newest]
            title = "All checkpoints" + (f", {run.name}" if len(runs) > 1 else "")
            tables.append(folded(title, table(["step", *names], body)))
    return tables


def _compared(
    columns: Sequence[dict[str, str]], names: Sequence[str], *, numbers: bool = True
) -> Markup:
    """Shows name -> text of every run side by side; nothing if all are empty."""
    names_of_rows = list(dict.fromkeys(row for column in columns for row in column))
    if not names_of_rows:
        return Markup("")
    header = ["", *(names if len(names) > 1 else [""])]
    rows = ([row, *(c.get(row) for c in columns)] for row in names_of_rows[:MAX_ROWS])
    return table(header, rows, numbers=numbers)


def _by_name(results: Sequence[dict[str, Any]]) -> Markup | None:
    """Shows one run's numbers that all stand under names (simclr, untrained): one row per name."""
    found = mapping(results[0].get("numbers"))
    if len(results) > 1 or not found or not all(isinstance(v, dict) for v in found.values()):
        return None
    return _listed([{"": spoken(name), **dict(flat(inner))} for name, inner in found.items()])


def _numbers(result: dict[str, Any]) -> dict[str, str]:
    shown = {name: value for name, value in result.items() if name in ("numbers", "chance")}
    return {
        spoken(name.removeprefix("numbers ")): _cell(name, value)
        for name, value in flat(shown)
        if number(value) is not None
    }


def _records(results: Sequence[dict[str, Any]], names: Sequence[str]) -> Markup:
    """Shows the rest of the results: the checkpoint, the data, versions."""
    columns = [
        {
            spoken(name): _cell(name, value)
            for name, value in flat({k: v for k, v in result.items() if k not in _NUMBERS})
        }
        for result in results
    ]
    return _compared(columns, names, numbers=False)


def _lists(result: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for key in ("numbers", "table", "per_class"):
        rows = [dict(flat(row)) for row in objects(result.get(key))]
        if any(rows):
            yield key, rows


def _listed(rows: list[dict[str, Any]]) -> Markup:
    names = list(dict.fromkeys(name for row in rows for name in row))[:MAX_ROWS]
    cells = ([_cell(name, row.get(name)) for name in names] for row in rows[:MAX_ROWS])
    return table(map(spoken, names), cells)


def _cell(name: str, value: Any) -> str:
    found = number(value)
    if found is None:
        return "" if value is None else shortened(str(value), 300)
    share = is_share(name) or name.split(" ")[-1] in _SHARES
    return words(found, share=share and 0 <= found <= 1)
