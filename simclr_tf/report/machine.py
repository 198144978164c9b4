"""Speed of a run, its waiting times, and where and how it was started."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from simclr_tf.report.curves import Curve, duration, is_share, spoken, words
from simclr_tf.report.files import flat, mapping, number
from simclr_tf.report.markup import Markup, folded, join, shortened, table, tag
from simclr_tf.report.reading import Run

MAX_STARTS = 50


def speed(runs: Sequence[Run]) -> Markup:
    """Shows throughput, host wait and memory over all reports, one column per run."""
    rows = [
        [title, *(_summary(run.curves.get(name), measure, is_share(name)) for run in runs)]
        for title, name, measure in _MEASURES
    ]
    rows.append(["time in steps", *(_time_in_steps(run) for run in runs)])
    rows = [row for row in rows if any(row[1:])]
    return table(["", *_names(runs)], rows) if rows else Markup("")


def environment(runs: Sequence[Run]) -> Markup:
    """Shows the environment of each run's last start side by side, and all starts of each run."""
    columns = [_environment(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name) for column in columns)] for name in names]
    found = table(["", *_names(runs)], rows, numbers=False) if rows else None
    return join([found, *(_starts(run, len(runs) > 1) for run in runs)])


def _last(values: list[float]) -> float:
    return values[-1]


_Measure = Callable[[list[float]], float]
_MEASURES: tuple[tuple[str, str, _Measure], ...] = (
    ("images a second, median", "examples_per_second", statistics.median),
    ("images a second, lowest", "examples_per_second", min),
    ("images a second, last", "examples_per_second", _last),
    ("host wait, median", "host_wait", statistics.median),
    ("host wait, highest", "host_wait", max),
    ("memory of the host in MiB, highest", "host_memory_mib", max),
    ("skipped images", "skipped_images", _last),
)


def _summary(curve: Curve | None, measure: _Measure, share: bool) -> str | None:
    values = curve.finite() if curve else []
    return words(measure(values), share=share) if values else None


def _time_in_steps(run: Run) -> str | None:
    """Sums images / (images per second) over all reports; saving is not included."""
    batch = number(run.plan_settings.get("global_batch_size"))
    rate = run.curves.get("examples_per_second")
    if batch is None or rate is None:
        return None
    before = [0.0, *rate.steps]
    parts = zip(before, rate.steps, rate.values, strict=False)
    seconds = sum((step - start) * batch / value for start, step, value in parts if value > 0)
    return duration(seconds)


def _environment(run: Run) -> dict[str, str]:
    """Returns the environment of the last start or, if that is not recorded, of the results."""
    if run.starts:
        return _texts(run.starts[-1].get("environment"))
    for result in run.results.values():
        if result.get("versions"):
            return _texts(result["versions"])
    return {}


def _starts(run: Run, named: bool) -> Markup | None:
    starts = run.starts
    if not starts:
        return None
    rows = []
    for place, start in list(enumerate(starts))[-MAX_STARTS:]:
        before = _texts(starts[place - 1].get("environment")) if place else None
        rows.append(
            [
                shortened(str(start.get("time", "")), 100),
                words(number(start.get("step"))) if "step" in start else None,
                tag("code", shortened(str(start.get("command", "")))),
                _changes(before, _texts(start.get("environment"))),
            ]
        )
    count = "1 start" if len(starts) == 1 else f"{len(starts)} starts"
    made = table(["time", "from step", "command", "changed"], rows, numbers=False)
    return folded(f"{run.name}: {count}" if named else count, made)


def _changes(before: dict[str, str] | None, now: dict[str, str]) -> str | None:
    if before is None:
        return None
    names = [name for name in before | now if before.get(name) != now.get(name)]
    return "; ".join(f"{n}: {before.get(n, '–')} → {now.get(n, '–')}" for n in names) or "nothing"


def _texts(environment: Any) -> dict[str, str]:
    return {
        spoken(name): words(found)
        if (found := number(value)) is not None
        else shortened(str(value), 500)
        for name, value in list(flat(mapping(environment)))[:100]
    }


def _names(runs: Sequence[Run]) -> list[str]:
    return [run.name for run in runs] if len(runs) > 1 else [""]
