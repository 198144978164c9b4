"""The request to a run: how recipes differ, the plan, and every setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simclr_tf.report.curves import spoken
from simclr_tf.report.markup import Markup, folded, join, shortened, table, tag
from simclr_tf.report.reading import Run
from simclr_tf.report.recipe import differences, settings

MAX_RECIPE = 200_000


def parts(runs: Sequence[Run]) -> list[Markup]:
    """Returns the differences, the plan, and the recipes in full, as far as available."""
    written = [run for run in runs if run.recipe]
    recipes = [
        folded(
            "config.gin, everything in force" + (f", {run.name}" if len(runs) > 1 else ""),
            tag("pre", shortened(run.recipe, MAX_RECIPE), tabindex="0"),
        )
        for run in written
    ]
    compared = [_differences(written)] if len(written) > 1 else []
    return [*compared, _plan(runs), *recipes]


def _differences(runs: Sequence[Run]) -> Markup:
    rows = [
        [name, *(value and shortened(value, 500) for value in values)]
        for name, values in differences([settings(run.recipe) for run in runs])
    ]
    made = (
        table(["", *(run.name for run in runs)], rows, numbers=False)
        if rows
        else tag("p", "None: the recipes are the same.", class_="muted")
    )
    return join([tag("h3", "Settings that differ"), made])


def _plan(runs: Sequence[Run]) -> Markup:
    """Returns the printed plan or, unless all runs have one, the plan stored in a checkpoint."""
    plans = _plans(runs)
    names = list(dict.fromkeys(name for plan in plans for name in plan))[:100]
    rows = [
        [
            spoken(name.strip()),
            *(None if plan.get(name) is None else shortened(str(plan[name])) for plan in plans),
        ]
        for name in names
        if any(plan.get(name) is not None for plan in plans)
    ]
    if not rows:
        return Markup("")
    several = len(runs) > 1
    header = ["", *(run.name if several else "" for run in runs)]
    made = table(header, rows, numbers=False)
    return join([tag("h3", "Plan") if several else None, made])


def _plans(runs: Sequence[Run]) -> list[dict[str, Any]]:
    printed = [run.record["plan"] for run in runs if isinstance(run.record.get("plan"), dict)]
    return printed if len(printed) == len(runs) else [run.plan_settings for run in runs]
