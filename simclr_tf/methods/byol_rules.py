"""Rules that find faults in the settings and numbers of BYOL."""

from __future__ import annotations

import math

from simclr_tf.methods.contrastive_rules import COLLAPSED_SPREAD
from simclr_tf.methods.rules import Finding, Report, Rule

# Share of the target's initial weights that is still in it when the run ends. Where all are left,
# at a momentum of 1, the paper's accuracy falls from 72.5 % to 18.8 % (300 epochs, section 5).
SLOW = math.exp(-1.0)


def slow_target(setting: str, momentum: float, total_steps: int) -> Finding | None:
    """Returns a finding if the target remains what it was at the start, else None.

    Args:
        setting: Name of the momentum in a recipe.
        momentum: Share of its weights that the target keeps in the first update, rising to 1.
        total_steps: Updates of the run.
    """
    # The mean of 1 - momentum over the run is half of what it is at first.
    left = math.exp(-(1.0 - momentum) * total_steps / 2)
    if left <= SLOW:
        return None
    text = (
        f"{left:.0%} of the slow network will still be its random initial weights after "
        f"{total_steps:,} steps, as {setting} is {momentum:g}: there is little to learn from "
        f"it. Lower {setting}, or train longer."
    )
    return Finding("target too slow", text)


def _collapse(report: Report) -> str | None:
    spread = report.numbers["embedding_std"]
    if not spread < COLLAPSED_SPREAD:
        return None
    return (
        f"projections have collapsed (spread {spread:.3f} of 1): nearly all images have the same "
        f"one, and the loss ({report.numbers['byol_loss']:.3f}) falls because equal vectors are "
        "easy to predict. Raise byol.momentum, lower the learning rate, and check that head and "
        "predictor have their batch normalization."
    )


COLLAPSE = Rule("collapse", _collapse)
