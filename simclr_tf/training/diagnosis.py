"""What the numbers of pretraining say is wrong with it, in plain words and with the likely cause.

docs/reading-the-curves.md lists the kinds of findings, and says what is normal.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras

from simclr_tf.distribute.batch_norm import local_normalizations
from simclr_tf.objectives.nt_xent import loss_chance, loss_floor

# Equal vectors have a cosine of 1 but for float32's rounding, about 1e-6; views that differ in
# anything do not come this near on the average of a report.
SAME_COSINE = 0.9999
# Recipes that learn something are far below it in the first epoch, given as many negatives as
# EASY_BATCH has; of a handful anyone finds the positive.
EASY_TOP1 = 0.99
EASY_BATCH = 32
# A linear classifier on an encoder that has seen each image once or less; natural images of
# several classes need a trained encoder to come near.
LEAKED_ACCURACY = 0.99
# Of 1. The quick start stays above 0.85; here projections fill less than a tenth of the sphere.
COLLAPSED_SPREAD = 0.1
# Of 1. Representations of an untrained encoder differ by hundredths of their length and more; sums
# in float32 leave less than 0.001 of no difference.
DEAD_SPREAD = 0.003
# The papers search from 0.05 to 1. Below 0.02 one negative, the nearest, has all of the gradient;
# above 2 the loss of perfect projections is within half a unit of guessing.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.02, 2.0
# Of the way from chance to the floor of the loss. Healthy runs have passed a tenth of it when the
# warm-up ends, or are on their way; 50 steps are the least that momentum 0.9 needs to get going.
NO_PROGRESS, FIRST_VERDICT = 0.02, 50
# What counts as having learned, and which part of it a run that only fluctuates does not lose.
LEARNED, LOST = 0.1, 0.5
# Reports that are averaged before loss is compared with loss, as small batches are noisy.
AVERAGED = 3


class Finding(NamedTuple):
    """Something that is wrong: its kind, which stays the same, and what to tell the person."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class _Report:
    """One report, and what the diagnosis knows beside it.

    Attributes:
      step: up to which it goes.
      epoch: the same in passes over the data.
      numbers: the report.
      run: what is known of the run.
      progress: of the loss from chance, 0, to its floor, 1: mean of the last `AVERAGED` reports.
      progress_before: the same of as many before them, or None if there are not as many.
      best_progress: the highest such mean so far.
    """

    step: int
    epoch: float
    numbers: Mapping[str, float]
    run: Diagnosis
    progress: float
    progress_before: float | None
    best_progress: float


class Diagnosis:
    """Looks at every report of a run. What it remembers of earlier ones is lost on a restart.

    Args:
      global_batch_size: G.
      chance: the loss of projections that are all alike.
      warmup_steps: the length of the warm-up; no verdict on learning is given before its end.
      num_classes: of the online probe's labels, if there are any.
    """

    def __init__(
        self, *, global_batch_size: int, chance: float, warmup_steps: int, num_classes: int | None
    ):
        self.global_batch_size = global_batch_size
        self.chance = chance
        self.warmup_steps = warmup_steps
        self.num_classes = num_classes
        self._progress: list[float] = []
        self._best = 0.0

    def look(self, step: int, epoch: float, numbers: Mapping[str, float]) -> list[Finding]:
        """Judges one report.

        Args:
          step: up to which it goes.
          epoch: the same in passes over the data.
          numbers: the step's means since the last report.
        """
        self._progress = [*self._progress, self._progress_of(numbers)][-2 * AVERAGED :]
        last, earlier = self._progress[-AVERAGED:], self._progress[:-AVERAGED]
        progress = statistics.fmean(last)
        before = statistics.fmean(earlier) if len(earlier) == AVERAGED else None
        if len(last) == AVERAGED:
            self._best = max(self._best, progress)
        report = _Report(step, epoch, numbers, self, progress, before, self._best)
        found = (_first(report, chain) for chain in _CHAINS)
        return [finding for finding in found if finding]

    def _progress_of(self, numbers: Mapping[str, float]) -> float:
        """How far the loss has come from chance, 0, to its floor, 1."""
        factor = self.chance / loss_chance(self.global_batch_size)
        floor = factor * loss_floor(self.global_batch_size, numbers["temperature"])
        return (self.chance - numbers["contrastive_loss"]) / (self.chance - floor)


def structural_findings(models: Mapping[str, keras.Model], num_replicas: int) -> list[Finding]:
    """What can be told of the networks before the first step."""
    names = [f"{name}/{layer}" for name, m in models.items() for layer in local_normalizations(m)]
    if num_replicas == 1 or not names:
        return []
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    text = (
        f"{shown} normalize the batch of each of the {num_replicas} replicas by itself, so the "
        "network can tell by the statistics alone which images are on its own replica, and with "
        "that find positives. Use SyncBatchNormalization (simclr_tf.distribute.batch_norm), or "
        "keras.layers.BatchNormalization(synchronized=True)."
    )
    return [Finding("batch norm not synchronized", text)]


def _dead_encoder(report: _Report) -> str | None:
    spread = report.numbers["representation_spread"]
    if not spread < DEAD_SPREAD:
        return None
    return (
        f"the encoder gives all images the same representation, or zeros (spread {spread:.4f} of "
        "1), so nothing above it can learn. Are the images all alike or black? Else the weights "
        "were thrown off: start anew with a lower learning rate or a longer warm-up."
    )


def _collapse(report: _Report) -> str | None:
    spread = report.numbers["embedding_std"]
    if not spread < COLLAPSED_SPREAD:
        return None
    return (
        f"projections have collapsed (spread {spread:.3f} of 1): nearly all images have the same "
        "one. Lower the learning rate, check that the images differ, and that the projection head "
        "has its batch normalization."
    )


def _identical_views(report: _Report) -> str | None:
    # Of images that are projected to a few points, the positive is one of many that are as near.
    found = report.numbers["contrastive_top1"] > EASY_TOP1
    if report.numbers["positive_cosine"] < SAME_COSINE or not found:
        return None
    return (
        "the two views of an image have the same projection: they are identical, so there is "
        "nothing to learn. Is the augmentation off, or seeded alike for both views? See "
        "figures/views.png."
    )


def _augmentation_off(report: _Report) -> str | None:
    if report.epoch > 1 or report.run.global_batch_size < EASY_BATCH:
        return None
    if report.numbers["contrastive_top1"] <= EASY_TOP1:
        return None
    return (
        f"positives are found without fail ({report.numbers['contrastive_top1']:.1%}) in the first "
        "epoch: views of an image are too alike to teach anything. Are the crops or the colour "
        "distortion off, or much too weak? See figures/views.png."
    )


def _learning_rate_too_high(report: _Report) -> str | None:
    if _temperature(report) or report.best_progress < LEARNED:
        return None
    if report.progress > (1 - LOST) * report.best_progress:
        return None
    return (
        f"the contrastive loss, {report.numbers['contrastive_loss']:.3f}, has gone back towards "
        f"chance ({report.run.chance:.2f}) and lost more than half of what was learned. The "
        f"learning rate ({report.numbers['learning_rate']:.3g}) is too high: lower it, or lengthen "
        "the warm-up."
    )


def _no_learning(report: _Report) -> str | None:
    if _temperature(report) or report.step <= max(report.run.warmup_steps, FIRST_VERDICT):
        return None
    # Where the temperature is low, the loss starts above chance and may still be falling.
    before = report.progress_before
    if report.progress >= NO_PROGRESS or before is None or report.progress - before >= NO_PROGRESS:
        return None
    return (
        f"the contrastive loss, {report.numbers['contrastive_loss']:.3f}, is still that of "
        f"guessing ({report.run.chance:.2f}) after the warm-up: the model cannot tell images "
        "apart. Is the learning rate far too high or low, the augmentation so strong that views "
        "have nothing in common, or are many images copies of one?"
    )


def _temperature(report: _Report) -> str | None:
    temperature = round(report.numbers["temperature"], 6)  # it has been a float32
    if temperature < LOWEST_TEMPERATURE:
        effect = "the nearest negative alone has all of the gradient"
    elif temperature > HIGHEST_TEMPERATURE:
        effect = "near and far negatives count the same"
    else:
        return None
    return (
        f"the temperature is {temperature:.3g}, so that {effect}. From 0.05 to 1 is usual: 0.1 for "
        "ImageNet and 0.5 for CIFAR-10. Is nt_xent.temperature what was meant?"
    )


def _labels_leaking(report: _Report) -> str | None:
    accuracy = report.numbers.get("probe_accuracy", 0.0)
    if report.epoch > 1 or (report.run.num_classes or 1) < 2 or accuracy <= LEAKED_ACCURACY:
        return None
    return (
        f"the online probe recognizes {accuracy:.1%} of the training images in the first epoch, "
        "before the encoder has learned anything: images seem to carry their label, as a border, "
        "watermark, background or size of each class does, or are copies of each other. Accuracies "
        "on such data say nothing of the encoder."
    )


_Rule = tuple[str, Callable[[_Report], str | None]]
# In a chain the first fault explains what stands after it.
_CHAINS: Sequence[Sequence[_Rule]] = (
    (("temperature out of range", _temperature),),
    (("labels leaking", _labels_leaking),),
    (
        ("dead encoder", _dead_encoder),
        ("collapse", _collapse),
        ("identical views", _identical_views),
        ("augmentation off", _augmentation_off),
        ("learning rate too high", _learning_rate_too_high),
        ("no learning", _no_learning),
    ),
)


def _first(report: _Report, chain: Sequence[_Rule]) -> Finding | None:
    for kind, rule in chain:
        text = rule(report)
        if text:
            return Finding(kind, text)
    return None
