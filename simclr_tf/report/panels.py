"""The charts of the page under headings, and their numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence

from simclr_tf.report.curves import BUCKETS, Curve, words
from simclr_tf.report.figures import Chart, grid
from simclr_tf.report.markup import Markup, folded, table, tag
from simclr_tf.report.reading import Run


def panels(runs: Sequence[Run], drawn: Sequence[tuple[str, list[Chart]]]) -> list[Markup]:
    """Returns all charts, tools that the script fills, and content that needs no script.

    Args:
      runs: the runs that the numbers come from.
      drawn: heading and charts, which are the first of the page.
    """
    if not drawn:
        return []
    first = 0
    parts = [tag("div", hidden=True, class_="tools", id="tools"), _without_script()]
    for heading, made in drawn:
        parts += [tag("h3", heading), grid(made, first)]
        first += len(made)
    most = max(len(c.steps) for run in runs for c in run.curves.values())
    parts.append(folded("All numbers in a table", _numbers(runs)))
    if most > 3 * BUCKETS + 2:
        text = f"Up to {most:,} reports a curve: the extremes of {BUCKETS} parts of each are drawn."
        parts.append(tag("p", text, class_="muted"))
    return parts


def _without_script() -> Markup:
    text = "Curves are drawn by a script, which does not run here; the table below has the numbers."
    return tag("noscript", tag("p", text, class_="muted"))


def _numbers(runs: Sequence[Run]) -> Markup:
    """Shows first, last, lowest and highest value of every number: curves in words."""
    rows = [
        [f"{run.name} · {name}" if len(runs) > 1 else name, *_range(curve)]
        for run in runs
        for name, curve in list(run.curves.items())[:200]
    ]
    return table(["", "first", "last", "lowest", "highest", "reports"], rows)


def _range(curve: Curve) -> list[str]:
    finite = curve.finite()
    shown = [
        curve.values[0],
        curve.values[-1],
        min(finite, default=None),
        max(finite, default=None),
    ]
    return [*(words(value) for value in shown), f"{len(curve.values):,}"]
