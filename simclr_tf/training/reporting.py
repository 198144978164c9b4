"""Output of a run: console, metrics.jsonl, TensorBoard and warnings.jsonl."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from simclr_tf.files import write_text


class Reporter:
    """Writes reports of one run; only the chief process writes.

    Args:
      model_dir: folder of `metrics.jsonl`, `warnings.jsonl` and TensorBoard's events.
      start_step: the step from which this process resumes; later reports and warnings of an
        interrupted run are dropped, since they will be made again.
      total_steps: the run's length.
      words: a report's numbers -> text of the progress line about the method's own numbers.
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
        self._warnings_path = os.path.join(model_dir, "warnings.jsonl")
        self._warned: set[str] = set()
        self._total_steps = total_steps
        self._words = words
        self._is_chief = is_chief
        self._seconds_per_step: float | None = None
        if is_chief:
            _drop_lines_after(self._path, start_step)
            _drop_lines_after(self._warnings_path, start_step)
            self._warned = {warning.get("kind") for warning in read_warnings(model_dir)}
            self._writer = tf.summary.create_file_writer(os.path.join(model_dir, "tensorboard"))

    def report(
        self, step: int, epoch: float, numbers: dict[str, float], *, steps: int, seconds: float
    ) -> None:
        """Reports `numbers`, the means over the last `steps` steps, which took `seconds`."""
        if not self._is_chief:
            return
        line = {"step": step, "epoch": round(epoch, 4), **numbers}
        _append(self._path, line)
        with self._writer.as_default(step=step):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        per_step = seconds / steps
        before = self._seconds_per_step or per_step
        self._seconds_per_step = 0.7 * before + 0.3 * per_step
        _print_progress(self._progress(step, epoch, numbers), last=step >= self._total_steps)

    def warn(self, step: int, epoch: float, kind: str, text: str) -> None:
        """Warns of each kind of fault once per run, however often the run is interrupted."""
        if not self._is_chief or kind in self._warned:
            return
        self._warned.add(kind)
        line = {"step": step, "epoch": round(epoch, 4), "kind": kind, "text": text}
        _append(self._warnings_path, line)
        if sys.stdout.isatty():
            print(flush=True)  # below the progress line
        logging.warning("WARNING, %s: %s", kind, text)

    def _progress(self, step: int, epoch: float, numbers: dict[str, float]) -> str:
        accuracy = numbers.get("probe_accuracy")
        left = (self._total_steps - step) * (self._seconds_per_step or 0.0)
        return (
            f"step {step}/{self._total_steps}  epoch {epoch:.1f}  {self._words(numbers)}  "
            + (f"probe {accuracy:.1%}  " if accuracy is not None else "")
            + f"lr {numbers['learning_rate']:.3g}  "
            f"{numbers['examples_per_second']:.0f} images/s  "
            f"host wait {numbers['host_wait']:.0%}  left {duration(left)}"
        )


def read_metrics(model_dir: str) -> list[dict[str, float]]:
    """Returns the reports of a run, oldest first.

    A line that is no report, as a kill leaves it, or that has no step is skipped.
    """
    return _read_lines(os.path.join(model_dir, "metrics.jsonl"))


def read_warnings(model_dir: str) -> list[dict[str, Any]]:
    """Returns the warnings of a run, oldest first: `step`, `epoch`, `kind` and `text`."""
    return _read_lines(os.path.join(model_dir, "warnings.jsonl"))


def duration(seconds: float) -> str:
    """Formats seconds for a person: 42 s, 12 min, 3 h 05 min."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _print_progress(text: str, *, last: bool) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


def _append(path: str, line: dict[str, Any]) -> None:
    """Appends a whole line; rewriting the file would cost more with every report."""
    with tf.io.gfile.GFile(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _read_lines(path: str) -> list[dict[str, Any]]:
    if not tf.io.gfile.exists(path):
        return []
    lines = []
    with tf.io.gfile.GFile(path, "rb") as file:
        text = file.read().decode(errors="replace")
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), (int, float)):
            lines.append(content)
    return lines


def _drop_lines_after(path: str, step: int) -> None:
    lines = [line for line in _read_lines(path) if line["step"] <= step]
    if tf.io.gfile.exists(path):
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
