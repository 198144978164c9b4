"""Judges a run's numbers: findings, the rules that make them, and the rules of any method.

docs/reading-the-curves.md lists the kinds of findings and the normal values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from simclr_tf.metrics import Metric

# Accuracy of a linear classifier on an encoder that has seen each image at most once; natural
# images of several classes need a trained encoder to come near.
LEAKED_ACCURACY = 0.99
# Spread, at most 1. Representations of an untrained encoder differ by hundredths of their length
# or more; equal ones differ by less than 0.001 after sums in float32.
DEAD_SPREAD = 0.003
# Share of the way from chance to the floor of the loss. Healthy runs have passed a tenth of it when
# the warm-up ends, or are falling; momentum 0.9 needs at least 50 steps to take effect.
NO_PROGRESS, FIRST_VERDICT = 0.02, 50
# Progress that counts as having learned, and the share of it that mere fluctuation never loses.
LEARNED, LOST = 0.1, 0.5


class Finding(NamedTuple):
    """A fault: its kind, which is fixed, and the text for the person."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """One report of a run, with facts about the run.

    Attributes:
      step: the last step of the report.
      epoch: the same in passes over the data.
      numbers: the report: means since the last one.
      global_batch_size: G.
      chance: the loss of guessing, or None if unknown.
      warmup_steps: the length of the warm-up; no verdict on learning is given before its end.
      num_classes: the number of the online probe's classes, or None without labels.
      progress: progress of the loss from chance, 0, to its floor, 1: mean of the last few reports.
      progress_before: the same mean over as many reports before, or None if there are too few.
      best_progress: the highest such mean so far.
    """

    step: int
    epoch: float
    numbers: Mapping[str, float]
    global_batch_size: int
    chance: float | None
    warmup_steps: int
    num_classes: int | None
    progress: float
    progress_before: float | None
    best_progress: float


class Rule(NamedTuple):
    """A kind of fault, and a check of a report that returns the text for the person, or None."""

    kind: str
    check: Callable[[Report], str | None]


# In a chain the first fault explains the later ones.
Chain = Sequence[Rule]


def first_finding(report: Report, chain: Chain) -> Finding | None:
    """Returns the first fault of a chain that the report shows."""
    for kind, check in chain:
        text = check(report)
        if text:
            return Finding(kind, text)
    return None


def judged_where(applies: Callable[[Report], bool], rule: Rule) -> Rule:
    """Returns a rule that judges the reports to which `applies`, and finds nothing in others."""
    return Rule(rule.kind, lambda report: rule.check(report) if applies(report) else None)


def makes_no_progress(report: Report) -> bool:
    """Returns whether the loss is near chance after the warm-up, and is not falling."""
    if report.step <= max(report.warmup_steps, FIRST_VERDICT):
        return False
    # At a low temperature the loss starts above chance and may still be falling.
    before = report.progress_before
    falling = before is None or report.progress - before >= NO_PROGRESS
    return report.progress < NO_PROGRESS and not falling


def learning_rules(loss: Metric) -> Chain:
    """Returns rules that judge the loss's way from chance to its floor; both must be known.

    Args:
      loss: the loss's name in a report and in words.
    """

    def too_high(report: Report) -> str | None:
        if report.best_progress < LEARNED or report.progress > (1 - LOST) * report.best_progress:
            return None
        return (
            f"the {loss.title}, {report.numbers[loss.name]:.3f}, has gone back towards "
            f"chance ({report.chance:.2f}) and lost more than half of what was learned. The "
            f"learning rate ({report.numbers['learning_rate']:.3g}) is too high: lower it, or "
            "lengthen the warm-up."
        )

    def no_learning(report: Report) -> str | None:
        if not makes_no_progress(report):
            return None
        return (
            f"the {loss.title}, {report.numbers[loss.name]:.3f}, is still that of "
            f"guessing ({report.chance:.2f}) after the warm-up: the model cannot tell images "
            "apart. Is the learning rate far too high or low, the augmentation so strong that "
            "views have nothing in common, or are many images copies of one?"
        )

    return Rule("learning rate too high", too_high), Rule("no learning", no_learning)


def _dead_encoder(report: Report) -> str | None:
    spread = report.numbers["representation_spread"]
    if not spread < DEAD_SPREAD:
        return None
    return (
        f"the encoder gives all images the same representation, or zeros (spread {spread:.4f} of "
        "1), so nothing above it can learn. Are the images all alike or black? Else the weights "
        "were thrown off: start again with a lower learning rate or a longer warm-up."
    )


def _labels_leaking(report: Report) -> str | None:
    accuracy = report.numbers.get("probe_accuracy", 0.0)
    if report.epoch > 1 or (report.num_classes or 1) < 2 or accuracy <= LEAKED_ACCURACY:
        return None
    return (
        f"the online probe recognizes {accuracy:.1%} of the training images in the first epoch, "
        "before the encoder has learned anything: images seem to carry their label, as a border, "
        "watermark, background or size of each class does, or are copies of each other. Accuracies "
        "on such data say nothing of the encoder."
    )


DEAD_ENCODER = Rule("dead encoder", _dead_encoder)
LABELS_LEAKING = Rule("labels leaking", _labels_leaking)
