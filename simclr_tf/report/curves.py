"""Named numbers over a run's steps: gathered from its lines, and thinned for drawing."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

from simclr_tf.report.files import number

BUCKETS = 250
_SHARE = re.compile(r"(.*[_ ])?(top\d+|accuracy|mean_per_class|host_wait)")


@dataclasses.dataclass
class Curve:
    """One number over the steps, in the order of the steps; values that are not finite are NaN."""

    steps: list[float] = dataclasses.field(default_factory=list)
    values: list[float] = dataclasses.field(default_factory=list)

    def finite(self) -> list[float]:
        """Returns the finite values, in their order."""
        return [v for v in self.values if math.isfinite(v)]


def gather(lines: Iterable[dict[str, Any]]) -> dict[str, Curve]:
    """Maps lines with a `step` to curves by name; skips values and steps that are no numbers."""
    curves: dict[str, Curve] = {}
    for line in lines:
        step = number(line.get("step"))
        if step is None or not math.isfinite(step):
            continue
        for name, value in line.items():
            found = number(value)
            if found is None or name == "step":
                continue
            curve = curves.setdefault(name, Curve())
            curve.steps.append(step)
            curve.values.append(found if math.isfinite(found) else math.nan)
    return {name: _in_order(curve) for name, curve in curves.items()}


def thin(curve: Curve, buckets: int = BUCKETS) -> Curve:
    """Keeps at most 3 points of each bucket, least, greatest and one not finite, and both ends."""
    count = len(curve.steps)
    if count <= 3 * buckets + 2:
        return curve
    kept = {0, count - 1}
    for bucket in range(buckets):
        rows = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        finite = [row for row in rows if math.isfinite(curve.values[row])]
        if finite:
            kept |= {min(finite, key=curve.values.__getitem__)}
            kept |= {max(finite, key=curve.values.__getitem__)}
        if len(finite) < len(rows):
            kept.add(next(row for row in rows if not math.isfinite(curve.values[row])))
    rows = sorted(kept)
    return Curve([curve.steps[r] for r in rows], [curve.values[r] for r in rows])


def is_share(name: str) -> bool:
    """Returns whether numbers of this name are shares of 1, which are shown in per cent."""
    return _SHARE.fullmatch(name) is not None


# The names of losses of methods; the online probe's is none of them.
METHOD_LOSS = r"(?!probe_)\w+_loss|cross_entropy"


def spoken(name: str) -> str:
    """Returns a readable form of a number's name."""
    return re.sub(r"\btop(?=\d)", "top-", name.replace("_", " "))


def words(value: float | None, *, share: bool = False) -> str:
    """Formats a number for a reader; share: in per cent."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if share:
        return f"{100 * value:.2f} %"
    if value == round(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Formats seconds: 42 s, 5 min 7 s, 12 min, 3 h 5 min."""
    if not math.isfinite(seconds):
        return "not finite"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _in_order(curve: Curve) -> Curve:
    if all(a <= b for a, b in zip(curve.steps, curve.steps[1:], strict=False)):
        return curve
    rows = sorted(range(len(curve.steps)), key=curve.steps.__getitem__)
    return Curve([curve.steps[r] for r in rows], [curve.values[r] for r in rows])
