"""The top of the report: the progress of a run, its warnings, and its key numbers."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import statistics
from collections.abc import Iterator, Sequence

from simclr_tf.report.curves import METHOD_LOSS, Curve, duration, spoken, words
from simclr_tf.report.figures import swatch
from simclr_tf.report.files import flat, number
from simclr_tf.report.markup import Markup, join, shortened, table, tag
from simclr_tf.report.reading import Run

MAX_WARNINGS = 50


@dataclasses.dataclass(frozen=True)
class Fact:
    """A key number."""

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """Progress of a run: `kind` is 'finished', 'unfinished' or 'unknown'."""

    kind: str
    text: str


def status(run: Run) -> Status:
    """Returns the progress of a run, by its last report and its plan."""
    step, total = run.step, run.total_steps
    if total is not None and step >= total:
        return Status("finished", f"Finished at step {step:,}")
    if total is not None and step:
        return Status("unfinished", f"Unfinished: step {step:,} of {total:,}")
    if step:
        return Status("unknown", f"At step {step:,}, planned length not recorded")
    if run.recipe or run.record or total is not None:
        return Status("unfinished", "No report yet")
    return Status("unknown", "Evaluation only, nothing was trained here")


def when(time: datetime.datetime) -> str:
    """Formats a time for a reader."""
    return f"{time.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"


def banners(runs: Sequence[Run], now: datetime.datetime) -> Markup:
    """Returns a line per run: its name and colour if several, status, last report and folder."""
    lines = []
    for place, run in enumerate(runs):
        found = status(run)
        lines.append(
            tag(
                "li",
                tag("strong", swatch(f"c{place % 8}"), run.name) if len(runs) > 1 else None,
                tag("span", found.text, class_=f"status {found.kind}"),
                tag("span", _last_report(run, now)) if run.step else None,
                tag("code", str(run.folder)),
            )
        )
    return tag("ul", *lines, class_="banners")


def _last_report(run: Run, now: datetime.datetime) -> str | None:
    if run.last_report is None:
        return None
    before = round((now - run.last_report).total_seconds())
    recent = f" ({duration(before)} before)" if 0 <= before < 86400 else ""
    return f"last report {when(run.last_report)}{recent}"


def warnings(runs: Sequence[Run]) -> Markup:
    """Shows all warnings, most prominently; one quiet line for the runs that have none."""
    boxes = [_warning_box(run, len(runs) > 1) for run in runs if run.warnings]
    silent: dict[str, list[str]] = {"Warnings were not recorded": [], "No warnings": []}
    for run in runs:
        if not run.warnings:
            recorded = run.warnings is not None or run.record
            silent["No warnings" if recorded else "Warnings were not recorded"].append(run.name)
    for text, some in silent.items():
        names = f": {', '.join(some)}" if len(runs) > 1 else ""
        if some:
            boxes.append(tag("p", f"{text}{names}.", class_="muted"))
    return tag("div", *boxes, id="warnings")


def key_numbers(runs: Sequence[Run]) -> Markup:
    """Shows tiles for one run, a table with one column per run for several."""
    if len(runs) == 1:
        tiles = [
            tag("div", tag("dt", f.name), tag("dd", f.value), tag("dd", f.note, class_="note"))
            for f in facts(runs[0])
        ]
        return tag("dl", *tiles, class_="tiles") if tiles else Markup("")
    columns = [{fact.name: fact for fact in facts(run)} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [_row([column.get(name) for column in columns]) for name in names]
    return table(["", *(run.name for run in runs)], rows) if rows else Markup("")


def facts(run: Run) -> Iterator[Fact]:
    """Yields a run's key numbers, if available."""
    if run.step:
        steps = f"{run.step:,}" + (f" of {run.total_steps:,}" if run.total_steps else "")
        epochs = run.epochs_per_step and f"{words(run.step * run.epochs_per_step)} epochs"
        yield Fact("steps", steps, epochs or "")
    for name in run.curves:
        if re.fullmatch(METHOD_LOSS, name):
            title = "loss" if name == "cross_entropy" else spoken(name)
            chance = _last(run.curves.get("loss_chance"))
            note = "" if chance is None else f"chance {words(chance)}"
            yield Fact(title, words(_last(run.curves[name])), note)
    for name, title, note in (
        ("contrastive_top1", "contrastive top-1", "positives found"),
        ("top1", "training top-1", "on training images"),
        ("probe_accuracy", "online probe", "on plain training images"),
    ):
        if name in run.curves:
            yield Fact(title, words(_last(run.curves[name]), share=True), note)
    yield from _results(run)
    rate = run.curves.get("examples_per_second")
    if rate and rate.finite():
        yield Fact("throughput", f"{words(statistics.median(rate.finite()))}/s", "images, median")


def _results(run: Run) -> Iterator[Fact]:
    for job, result in run.results.items():
        for name, value in flat(result.get("numbers")):
            found = number(value)
            if name.split(" ")[-1] == "top1" and found is not None:
                yield Fact(spoken(f"{job} top1"), words(found, share=True), "on test images")
                break


def _last(curve: Curve | None) -> float | None:
    """Returns a curve's last value, or None."""
    return curve.values[-1] if curve and curve.values else None


def _row(facts: list[Fact | None]) -> list[Markup | None]:
    """Returns a row of the comparison; a note that holds for all runs follows the name."""
    known = [fact for fact in facts if fact]
    notes = {fact.note for fact in known}
    common = notes.pop() if len(notes) == 1 else ""
    cells = [fact and _noted(fact.value, "" if common else fact.note) for fact in facts]
    return [_noted(known[0].name, common), *cells]


def _noted(text: str, note: str) -> Markup:
    return join([text, tag("span", note, class_="note") if note else None])


def _warning_box(run: Run, named: bool) -> Markup:
    found = run.warnings or []
    items = [
        tag(
            "li",
            tag("strong", shortened(str(w.get("kind", "warning")), 100)),
            tag("span", _place(w), class_="note"),
            tag("p", shortened(str(w.get("text", "")))),
        )
        for w in found[:MAX_WARNINGS]
    ]
    count = f"{len(found):,} warning" + ("s" if len(found) != 1 else "")
    more = len(found) - len(items)
    return tag(
        "aside",
        tag("h2", f"{run.name}: {count}" if named else count.capitalize()),
        tag("ul", *items),
        tag("p", f"{more:,} more are in warnings.jsonl.", class_="muted") if more > 0 else None,
        class_="warnings",
    )


def _place(warning: dict) -> str:
    step, epoch = number(warning.get("step")), number(warning.get("epoch"))
    said = [f"step {words(step)}"] if step is not None else []
    if epoch is not None and math.isfinite(epoch):
        said.append(f"epoch {words(epoch)}")
    return ", ".join(said)
