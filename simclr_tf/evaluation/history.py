"""Results of a run's checkpoints: a file of JSON lines, and curves in TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import Result
from simclr_tf.files import write_text


class History:
    """`results/watch.jsonl`, one line per step and job; a restart reads it again.

    A line that was cut short by a kill is skipped, and dropped from the file. A new history writes
    nothing before its first number.

    Args:
      model_dir: folder of the file and of TensorBoard's events (in `tensorboard/watch`).
      run: the folder of the run that wrote the checkpoints.

    Raises:
      RequestError: the file has numbers of another run.
    """

    def __init__(self, model_dir: str, run: str):
        self._model_dir = model_dir
        # Relative to this folder, so that both may be moved together.
        self._run = run if "://" in run + model_dir else os.path.relpath(run, model_dir or ".")
        self._path = os.path.join(model_dir, "results", "watch.jsonl")
        self._writer: tf.summary.SummaryWriter | None = None
        self._known: dict[tuple[int, str], dict[str, Any]] = {}
        self._read()

    def numbers(self, step: int, job: str) -> dict[str, Any] | None:
        """Returns a job's result for the checkpoint of `step`; None if it has not run on it."""
        return self._known.get((step, job))

    def add(self, step: int, name: str, result: Result) -> None:
        """Records the result of an evaluation.

        Args:
          step: step of the checkpoint.
          name: name of the evaluation.
          result: its result.
        """
        if self._writer is None:
            folder = os.path.join(self._model_dir, "tensorboard", "watch")
            self._writer = tf.summary.create_file_writer(folder)
            tf.io.gfile.makedirs(os.path.dirname(self._path))
        with self._writer.as_default(step=step):
            for curve, value in result.curves.items():
                tf.summary.scalar(f"{name}/{curve}", value)
        self._writer.flush()
        told = {key: result.record.get(key, {}) for key in ("numbers", "splits")}
        told = json.loads(json.dumps(told, default=dataclasses.asdict))
        line = {"step": step, "job": name, "run": self._run, **told}
        with tf.io.gfile.GFile(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self._known[step, name] = line["numbers"]

    def _read(self) -> None:
        if not tf.io.gfile.exists(self._path):
            return
        with tf.io.gfile.GFile(self._path, "rb") as file:
            text = file.read().decode(errors="replace")
        whole = []
        for line in text.splitlines(keepends=True):
            try:
                found = json.loads(line)
                run = found["run"]
                self._known[found["step"], found["job"]] = found["numbers"]
            except (ValueError, KeyError, TypeError):
                continue
            if run != self._run:
                raise RequestError(
                    f"{self._path} must have numbers of one run. Received: those of {run}, seen "
                    f"from {self._model_dir}, and {self._run} to be watched. Take another "
                    "--model_dir."
                )
            whole.append(line if line.endswith("\n") else f"{line}\n")
        if "".join(whole) != text:
            write_text(self._path, "".join(whole))
