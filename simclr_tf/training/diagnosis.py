"""Judges the reports of a run by the rules of its method, in plain words and with likely causes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import keras

from simclr_tf.distribute.batch_norm import local_normalizations
from simclr_tf.methods.base import Method
from simclr_tf.methods.rules import Finding, Report, first_finding

# Reports averaged before losses are compared, as the loss of small batches is noisy.
AVERAGED = 3


class Diagnosis:
    """Judges every report of a run. After a restart it has no memory of earlier reports.

    Args:
      method: gives the rules and the name of the loss.
      global_batch_size: G.
      warmup_steps: the length of the warm-up; no verdict on learning is given before its end.
      num_classes: classes of the online probe's labels, if there are any.
    """

    def __init__(
        self, method: Method, *, global_batch_size: int, warmup_steps: int, num_classes: int | None
    ):
        self._chains = method.rules()
        self._loss = method.metrics[0].name
        self._global_batch_size = global_batch_size
        self._expected = method.expected(global_batch_size)
        self._warmup_steps = warmup_steps
        self._num_classes = num_classes
        self._progress: list[float] = []
        self._best = 0.0

    def look(self, step: int, epoch: float, numbers: Mapping[str, float]) -> list[Finding]:
        """Judges one report.

        Args:
          step: last step of the report.
          epoch: the same in passes over the data.
          numbers: the step's means since the last report.
        """
        self._progress = [*self._progress, self._progress_of(numbers)][-2 * AVERAGED :]
        last, earlier = self._progress[-AVERAGED:], self._progress[:-AVERAGED]
        progress = statistics.fmean(last)
        if len(last) == AVERAGED:
            self._best = max(self._best, progress)
        report = Report(
            step=step,
            epoch=epoch,
            numbers=numbers,
            global_batch_size=self._global_batch_size,
            chance=self._expected[0] if self._expected else None,
            warmup_steps=self._warmup_steps,
            num_classes=self._num_classes,
            progress=progress,
            progress_before=statistics.fmean(earlier) if len(earlier) == AVERAGED else None,
            best_progress=self._best,
        )
        found = (first_finding(report, chain) for chain in self._chains)
        return [finding for finding in found if finding]

    def _progress_of(self, numbers: Mapping[str, float]) -> float:
        """Returns the loss on a scale from chance, 0, to its floor, 1; 0 if these are unknown."""
        if self._expected is None:
            return 0.0
        chance, floor = self._expected
        return (chance - numbers[self._loss]) / (chance - floor)


def structural_findings(models: Mapping[str, keras.Model], num_replicas: int) -> list[Finding]:
    """Finds faults of the networks that are visible before the first step."""
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
