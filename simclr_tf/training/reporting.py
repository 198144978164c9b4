"""What a run tells while it goes: console, metrics.jsonl, TensorBoard; and warnings in words."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from simclr_tf.training.checkpoints import write_text


class Reporter:
    """Writes reports of one run; a process that is not the chief stays silent.

    Args:
      model_dir: where `metrics.jsonl` and TensorBoard's events go.
      start_step: the step from which this process goes on; later reports of an interrupted run
        are dropped, since they will be made again.
      total_steps: the run's length.
      words: a report's numbers -> what the progress line says of the run's own ones.
      is_chief: whether this process reports.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        start_step: int,
        total_steps: int,
        words: Callable[[dict[str, float]], str],
        is_chief: bool = True,
    ):
        self._path = os.path.join(model_dir, "metrics.jsonl")
        self._total_steps = total_steps
        self._words = words
        self._is_chief = is_chief
        self._seconds_per_step: float | None = None
        if is_chief:
            _drop_reports_after(self._path, start_step)
            self._writer = tf.summary.create_file_writer(os.path.join(model_dir, "tensorboard"))

    def report(
        self, step: int, epoch: float, numbers: dict[str, float], *, steps: int, seconds: float
    ) -> None:
        """Reports `numbers`, the means over the last `steps` steps, which took `seconds`."""
        if not self._is_chief:
            return
        line = {"step": step, "epoch": round(epoch, 4), **numbers}
        # The file is appended to by whole lines; rewriting it would cost more with every report.
        with tf.io.gfile.GFile(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        with self._writer.as_default(step=step):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        per_step = seconds / steps
        before = self._seconds_per_step or per_step
        self._seconds_per_step = 0.7 * before + 0.3 * per_step
        _print_progress(self._progress(step, epoch, numbers), last=step >= self._total_steps)

    def _progress(self, step: int, epoch: float, numbers: dict[str, float]) -> str:
        left = (self._total_steps - step) * (self._seconds_per_step or 0.0)
        return (
            f"step {step}/{self._total_steps}  epoch {epoch:.1f}  {self._words(numbers)}  "
            f"lr {numbers['learning_rate']:.3g}  "
            f"{numbers['examples_per_second']:.0f} images/s  "
            f"host wait {numbers['host_wait']:.0%}  left {duration(left)}"
        )


def contrastive_words(numbers: dict[str, float]) -> str:
    """What a progress line says of pretraining."""
    accuracy = numbers.get("probe_accuracy")
    return (
        f"contrastive loss {numbers['contrastive_loss']:.3f} (chance "
        f"{numbers['loss_chance']:.2f}), top-1 {numbers['contrastive_top1']:.1%}"
        + ("" if accuracy is None else f"  probe {accuracy:.1%}")
    )


def read_metrics(model_dir: str) -> list[dict[str, float]]:
    """The reports of a run, oldest first; a line cut short by a kill is left out."""
    path = os.path.join(model_dir, "metrics.jsonl")
    if not tf.io.gfile.exists(path):
        return []
    reports = []
    with tf.io.gfile.GFile(path) as file:
        for line in file.read().splitlines():
            try:
                reports.append(json.loads(line))
            except ValueError:
                continue
    return reports


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3 h 05 min."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Watch:
    """Warns, once each, about a run that does not learn or collapses.

    Args:
      chance: the loss of a model that cannot tell images apart, log(2G - 1).
      warmup_steps: the length of the warm-up; no verdict on learning is given before its end.
    """

    def __init__(self, chance: float, warmup_steps: int):
        self._chance = chance
        self._warmup_steps = warmup_steps
        self._said: set[str] = set()

    def look(self, step: int, epoch: float, numbers: dict[str, float]) -> None:
        """Judges one report."""
        ratio = numbers["contrastive_loss"] / self._chance
        if step > max(self._warmup_steps, 50) and ratio > 0.98:
            self._say(
                "no learning",
                f"the contrastive loss is {ratio:.0%} of chance after the warm-up: the model tells "
                "images apart no better than by guessing. Is the learning rate far too high or "
                "low, the batch tiny, or the augmentation too strong?",
            )
        if step > 1 and numbers["embedding_std"] < 0.1:
            self._say(
                "collapse",
                f"embeddings have collapsed (spread {numbers['embedding_std']:.3f} of 1): nearly "
                "all images have the same projection. Lower the learning rate, and check that the "
                "images differ.",
            )
        if epoch < 1 and numbers["contrastive_top1"] > 0.999:
            self._say(
                "identical views",
                "positives are found without fail in the first epoch: the two views may be "
                "identical. Is the augmentation off?",
            )

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            logging.warning("%s", text)


def _print_progress(text: str, *, last: bool) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


def _drop_reports_after(path: str, step: int) -> None:
    reports = [r for r in read_metrics(os.path.dirname(path)) if r["step"] <= step]
    if tf.io.gfile.exists(path):
        write_text(path, "".join(json.dumps(r) + "\n" for r in reports))
