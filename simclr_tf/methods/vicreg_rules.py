"""Rules that find faults in the numbers of VICReg."""

from __future__ import annotations

from simclr_tf.methods.contrastive_rules import IDENTICAL
from simclr_tf.methods.rules import FIRST_VERDICT, Report, Rule

# Standard deviation of projections. The loss pulls it to 1, and it starts at some tenths.
COLLAPSED_STD = 0.1
# Mean square of the differences between views, which float32 rounds to about 1e-14.
SAME_INVARIANCE = 1e-8
# Directions that projections use, of hundreds: with one alone every dimension says the same.
FEW_DIRECTIONS = 2.0


def _collapse(report: Report) -> str | None:
    deviation = report.numbers["projection_std"]
    if not deviation < COLLAPSED_STD:
        return None
    return (
        f"projections have collapsed (standard deviation {deviation:.3f}, and the goal is 1): "
        "nearly all images have the same one. Is vicreg_loss.variance far below "
        "vicreg_loss.invariance, where the paper has 25 for both? Else lower the learning rate, "
        "and check that the images differ."
    )


def _identical_views(report: Report) -> str | None:
    return IDENTICAL if report.numbers["invariance"] < SAME_INVARIANCE else None


def _few_directions(report: Report) -> str | None:
    rank = report.numbers["effective_rank"]
    if report.step <= max(report.warmup_steps, FIRST_VERDICT) or not rank < FEW_DIRECTIONS:
        return None
    return (
        f"projections vary along one direction (effective rank {rank:.2f}): their dimensions say "
        "the same. Is vicreg_loss.covariance 0 or far below the paper's 1? Else lower the learning "
        "rate."
    )


VICREG_RULES = (
    Rule("collapse", _collapse),
    Rule("identical views", _identical_views),
    Rule("dimensions correlated", _few_directions),
)
