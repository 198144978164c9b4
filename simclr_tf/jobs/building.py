"""What several jobs do the same way: build models from a recipe, restore, write results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

import simclr_tf
from simclr_tf.distribute.strategy import num_workers
from simclr_tf.errors import RequestError
from simclr_tf.files import write_text
from simclr_tf.jobs import Context
from simclr_tf.models.networks import representation_dim
from simclr_tf.training.mishaps import writes_checked


@contextlib.contextmanager
def requests_checked() -> Iterator[None]:
    """While a run is being put together, what its parts refuse is the request's fault."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, tf.errors.OpError) as error:
        raise RequestError(str(error).partition("\n  In call to configurable")[0]) from error


def build_for_export(
    encoder: Callable[..., keras.Model],
    projection_head: Callable[..., keras.Model],
    image_size: int,
) -> dict[str, keras.Model]:
    """The networks of a SavedModel, by their names in a checkpoint."""
    encoder_model = encoder(image_size=image_size)
    head = projection_head(input_dim=representation_dim(encoder_model))
    return {"encoder": encoder_model, "projection_head": head}


def refuse_tpu(context: Context) -> None:
    """Raises RequestError if the command line asks this job, which uses no device, for a TPU."""
    if context.tpu not in ("auto", "none"):
        raise RequestError(
            "This job runs on the host, and on no TPU. Received: "
            f"--tpu={context.tpu}. Leave --tpu out for this job."
        )


def refuse_workers() -> None:
    """Raises RequestError if TF_CONFIG makes this process one of several, which it would await."""
    workers = num_workers()
    if workers > 1:
        raise RequestError(
            "Evaluations run in one process, on all of its devices. Received: TF_CONFIG with "
            f"{workers} workers. Unset it, and run this job on one host."
        )


def write_result(
    model_dir: str, job: str, versions: dict[str, str] | None = None, **record: Any
) -> dict[str, Any]:
    """Writes `results/<job>.json`, with the versions that gave the numbers, and returns it.

    Args:
      model_dir: of the run.
      job: whose result it is.
      versions: of what took part beside the usual.
      **record: what is written; dataclasses as their fields.
    """
    record["versions"] = {
        "simclr_tf": simclr_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **(versions or {}),
    }
    text = json.dumps(record, default=dataclasses.asdict, indent=2)
    folder = os.path.join(model_dir, "results")
    with writes_checked(model_dir):
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, f"{job}.json"), text + "\n")
    return json.loads(text)
