"""What a job found, and how it is published: printed, and written into the model_dir."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import simclr_tf
from simclr_tf.files import write_text
from simclr_tf.training.failures import explain_write_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a job found; nothing of it was printed or written yet.

    Attributes:
      job: its name.
      text: what a person is told.
      record: what is written; dataclasses as their fields.
      curves: the numbers that are worth a curve over the checkpoints of a run, by name; shares.
      versions: of what took part beside this package, TensorFlow and Keras.
    """

    job: str
    text: str
    record: Mapping[str, Any]
    curves: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def publish(result: Result, model_dir: str) -> dict[str, Any]:
    """Prints the text, and writes `results/<job>.json` in `model_dir`.

    Returns:
      What was written: the record, and the versions that gave it.
    """
    print(result.text, flush=True)
    versions = {
        "simclr_tf": simclr_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **result.versions,
    }
    content = {**result.record, "versions": versions}
    text = json.dumps(content, default=dataclasses.asdict, indent=2)
    folder = os.path.join(model_dir, "results")
    with explain_write_errors(model_dir):
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, f"{result.job}.json"), text + "\n")
    return json.loads(text)
