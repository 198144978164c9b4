"""A chart: curves on common axes, as HTML without a drawing and as data for the drawing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from simclr_tf.report.curves import Curve, words
from simclr_tf.report.markup import Markup, tag


@dataclasses.dataclass(frozen=True)
class Kind:
    """A chart that every run may have: it shows the numbers whose names match."""

    title: str
    names: str
    note: str = ""
    share: bool = False
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve in a chart.

    Attributes:
      run: index of the run.
      label: text in the legend.
      colour: 0 to 7, by run if there are several.
      dash: 0 to 3, by number if colours distinguish runs.
      curve: thinned.
      reference: whether it is drawn as a reference to compare with.
    """

    run: int
    label: str
    colour: int
    dash: int
    curve: Curve
    reference: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves on common axes."""

    kind: Kind
    lines: list[Line]

    def figure(self, number: int) -> Markup:
        """Returns the chart without its drawing: title, and legend with each curve's last value."""
        points = sum(len(line.curve.steps) for line in self.lines)
        return tag(
            "figure",
            tag(
                "figcaption",
                tag("h4", self.kind.title),
                tag("span", ", ".join(self._notes()), class_="note"),
                tag("span", class_="at"),
            ),
            tag(
                "div",
                class_="plot",
                tabindex="0",
                role="img",
                aria_label=f"Chart of {self.kind.title}, {points} points; arrow keys read them.",
            ),
            tag("ul", *(self._legend(line) for line in self.lines), class_="legend"),
            class_="chart",
            data_chart=str(number),
        )

    def data(self) -> dict[str, Any]:
        """Returns the data that the page's script draws."""
        return {
            "share": self.kind.share,
            "log": self.kind.log,
            "lines": [
                {
                    "run": line.run,
                    "style": _style(line),
                    "x": [_digits(x) for x in line.curve.steps],
                    "y": [_digits(y) for y in line.curve.values],
                }
                for line in self.lines
            ],
        }

    def _notes(self) -> Iterator[str]:
        if self.kind.note:
            yield self.kind.note
        for line in self.lines:
            for step, value in zip(line.curve.steps, line.curve.values, strict=True):
                if not math.isfinite(value):
                    yield f"not finite at step {words(step)}"
                    return

    def _legend(self, line: Line) -> Markup:
        last = words(line.curve.values[-1], share=self.kind.share)
        button = tag(
            "button",
            swatch(_style(line)),
            tag("span", line.label),
            type="button",
            aria_pressed="true",
        )
        return tag("li", button, tag("span", last, class_="value"))


def swatch(style: str) -> Markup:
    """Returns a short piece of a curve, for legends."""
    path = tag("path", d="M1 5H21", class_=style)
    return tag("svg", path, viewBox="0 0 22 10", aria_hidden="true", class_="swatch")


def grid(made: Sequence[Chart], first: int) -> Markup:
    """Places charts beside each other; `first` is the number of the first one on the page."""
    if not made:
        return Markup("")
    figures = (chart.figure(number) for number, chart in enumerate(made, first))
    return tag("div", *figures, class_="charts")


def _style(line: Line) -> str:
    return "reference" if line.reference else f"c{line.colour} d{line.dash}"


def _digits(value: float) -> float | None:
    """Rounds to six digits, more than a screen shows; a number that is not finite leaves a gap."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.6g}")
