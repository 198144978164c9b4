"""The result of a job, and its publication: printed, and written into the model_dir."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import simclr_tf
from simclr_tf.files import write_text
from simclr_tf.training.failures import explain_write_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a job, not printed or written yet.

    Attributes:
      job: the job's name.
      text: the text to print.
      record: the JSON to write; dataclasses become their fields, NumPy's numbers plain ones.
      curves: numbers to plot over the checkpoints of a run, by name.
      versions: versions of libraries used besides this package, TensorFlow and Keras.
    """

    job: str
    text: str
    record: Mapping[str, Any]
    curves: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def publish(result: Result, model_dir: str) -> dict[str, Any]:
    """Prints the text, and writes `results/<job>.json` in `model_dir`.

    Returns:
      The written object: the record, and the versions that produced it.
    """
    versions = {
        "simclr_tf": simclr_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **result.versions,
    }
    content = {**result.record, "versions": versions}
    text = json.dumps(content, default=_plain, indent=2)
    print(result.text, flush=True)
    folder = os.path.join(model_dir, "results")
    with explain_write_errors(model_dir):
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, f"{result.job}.json"), text + "\n")
    return json.loads(text)


def _plain(value: Any) -> Any:
    """Returns what JSON writes in place of a dataclass or of numbers of NumPy."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(
        "A record must hold numbers, text, lists, dicts and dataclasses. Received: "
        f"{type(value).__name__}, {value!r}."
    )
