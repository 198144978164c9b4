"""Follows a run's folder, in which another process writes checkpoints and deletes old ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.history import History
from simclr_tf.export.weights import PretrainedWeights
from simclr_tf.training.checkpoints import DAMAGED, complete_steps, is_intact, read_manifest
from simclr_tf.training.failures import cause
from simclr_tf.training.reporting import duration


class Follower:
    """Evaluates each checkpoint of a run once, the oldest first.

    Args:
      run: the run whose checkpoints are evaluated.
      networks: the checkpoints are restored into these, by their names in a checkpoint.
      history: earlier results, by step.
      jobs: names of the evaluations that each checkpoint needs.
      evaluate: runs some of them on `networks`, into which the weights were restored, and adds
        the results to `history`.
    """

    def __init__(
        self,
        run: PretrainedWeights,
        networks: Mapping[str, keras.Model],
        history: History,
        jobs: Sequence[str],
        evaluate: Callable[[PretrainedWeights, Sequence[str]], None],
    ):
        self._run = run
        self._networks = networks
        self._history = history
        self._jobs = jobs
        self._evaluate = evaluate
        self._waiting: set[int] = set()
        self._failures: dict[int, int] = {}

    def follow(self, poll_seconds: float, patience_seconds: float) -> None:
        """Returns when the checkpoint of the run's last step has been evaluated.

        Args:
          poll_seconds: time between two looks when there is nothing to do.
          patience_seconds: how long the run may show no sign of life.

        Raises:
          RequestError: it showed none for so long, or has another architecture.
        """
        what = f"{' and '.join(self._jobs)} of each checkpoint of {self._run.path}"
        there = complete_steps(self._run.path, intact=False)
        print(what + ("" if there else ", which has none yet"), flush=True)
        signs, since = None, time.monotonic()
        while True:
            steps = complete_steps(self._run.path, intact=False)
            self._say_gone(steps)
            evaluated = [step for step in steps if self._look_at(step)]
            if steps and self._is_end(steps[-1]):
                print(f"step {steps[-1]} is the run's last", flush=True)
                return
            before, signs = signs, (steps, self._length_of_reports())
            if evaluated or signs != before:
                since = time.monotonic()
            elif time.monotonic() - since > patience_seconds:
                self._give_up(steps, patience_seconds)
            if not evaluated:
                time.sleep(poll_seconds)

    def _look_at(self, step: int) -> bool:
        """Evaluates a checkpoint, and returns whether that was possible."""
        missing = self._missing(step)
        weights = self._restore(step) if missing else None
        if weights is None:
            return False
        self._evaluate(weights, missing)
        print(self._line(step), flush=True)
        return True

    def _missing(self, step: int) -> list[str]:
        return [job for job in self._jobs if self._history.numbers(step, job) is None]

    def _restore(self, step: int) -> PretrainedWeights | None:
        """Fills the networks; None if the checkpoint is damaged, or being deleted.

        A checkpoint counts as damaged if it fails twice. It is tried again at every look, since the
        run may resume from an older checkpoint and write this one again.
        """
        try:
            if not is_intact(self._run.path, step):
                raise ValueError("its files are not those of its manifest")
            weights = self._run.at(step)
            weights.restore(self._networks)
            return weights
        except DAMAGED as error:
            self._failures[step] = self._failures.get(step, 0) + 1
            if self._failures[step] == 2:
                logging.error(
                    "checkpoint of step %d is damaged and passed over: %s", step, cause(error)
                )
            return None

    def _say_gone(self, steps: Sequence[int]) -> None:
        for step in sorted(self._waiting.difference(steps)):
            if self._missing(step):
                print(
                    f"step {step} is passed over: the run let go of it before it was evaluated",
                    flush=True,
                )
        self._waiting = set(steps)

    def _is_end(self, step: int) -> bool:
        return not self._missing(step) and self._total_steps(step) == step

    def _total_steps(self, step: int) -> int | None:
        """Returns the run's length; a checkpoint from no training run is its own last step."""
        try:
            return read_manifest(self._run.path, step)["settings"].get("total_steps", step)
        except (tf.errors.OpError, ValueError, KeyError):
            return None

    def _length_of_reports(self) -> int:
        path = os.path.join(self._run.path, "metrics.jsonl")
        return tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else 0

    def _line(self, step: int) -> str:
        total = self._total_steps(step)
        words = [f"step {step}" + (f"/{total}" if total is not None else "")]
        for job in self._jobs:
            words.append(f"{job} {_said(self._history.numbers(step, job))}")
        return "  ".join(words)

    def _give_up(self, steps: Sequence[int], patience_seconds: float) -> None:
        newest = f"its newest checkpoint is that of step {steps[-1]}" if steps else "it has none"
        raise RequestError(
            "A run that is watched must show a new checkpoint or report within "
            f"watch.patience_minutes, {duration(patience_seconds)}. Received: {self._run.path}; "
            f"{newest}, and its last step is still to come. Start it again, and then this: what "
            "was evaluated is noted."
        )


def _said(numbers: Mapping[str, Any]) -> str:
    """Returns an evaluation's accuracies, or, where it has none, its numbers."""
    found = [f"top-{k} {numbers[f'top{k}']:.2%}" for k in (1, 5) if f"top{k}" in numbers]
    others = [f"{n} {value:.4g}" for n, value in numbers.items() if isinstance(value, float)]
    return ", ".join(found or others) or "done"
