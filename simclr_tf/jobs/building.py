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
from simclr_tf.data.read_errors import is_read_error
from simclr_tf.distribute.strategy import num_workers
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.models.heads import linear_probe
from simclr_tf.models.simclr import SimCLR, representation_dim
from simclr_tf.training.checkpoints import write_text
from simclr_tf.training.mishaps import UNREACHABLE, writes_checked


@contextlib.contextmanager
def as_request_error() -> Iterator[None]:
    """While a run is put together, makes a RequestError of what lies outside this program.

    That is a file that is not there or cannot be read, a package that is not installed, and memory
    that does not suffice. Any other error is a bug and keeps its traceback.
    """
    try:
        yield
    except (OSError, ImportError, tf.errors.OpError) as error:
        if isinstance(error, tf.errors.OpError) and not _is_of_files_or_memory(error):
            raise
        raise RequestError(str(error).partition("\n  In call to configurable")[0]) from error


def _is_of_files_or_memory(error: tf.errors.OpError) -> bool:
    kinds = (tf.errors.ResourceExhaustedError, *UNREACHABLE)
    return is_read_error(error) or isinstance(error, kinds) or "File system" in error.message


def check_minutes(job: str, minutes: float | None) -> None:
    """Raises RequestError unless the time between two checkpoints is positive, or None."""
    if minutes is not None and not minutes > 0:
        raise RequestError(
            f"{job}.checkpoint_every_minutes must be more than 0, or None. Received: {minutes}."
        )


def check_seed(job: str, seed: int) -> None:
    """Raises RequestError unless random numbers can be drawn by `seed`."""
    if not 0 <= seed < 2**32:
        raise RequestError(f"{job}.seed must be from 0 to 2**32 - 1. Received: {seed}.")


def build_simclr(
    encoder: Callable[..., keras.Model],
    projection_head: Callable[..., keras.Model],
    *,
    image_size: int,
    num_classes: int | None,
    precision: str,
    seed: int,
) -> SimCLR:
    """Builds the models, initialized by `seed` alone.

    Args:
      encoder: `image_size` -> the encoder.
      projection_head: `input_dim` -> the projection head.
      image_size: side of the training images in pixels.
      num_classes: classes of the online probe, or None for no probe.
      precision: Keras dtype policy of the encoder and head, such as `mixed_bfloat16`.
      seed: of the initial weights.
    """
    keras.utils.set_random_seed(seed)
    with dtype_policy(precision):
        encoder_model = encoder(image_size=image_size)
        dim = representation_dim(encoder_model)
        head = projection_head(input_dim=dim)
    probe = linear_probe(num_classes, input_dim=dim) if num_classes else None
    return SimCLR(encoder_model, head, probe)


def build_for_export(
    encoder: Callable[..., keras.Model],
    projection_head: Callable[..., keras.Model],
    image_size: int,
) -> dict[str, keras.Model]:
    """The networks of a SavedModel, by their names in a checkpoint."""
    encoder_model = encoder(image_size=image_size)
    head = projection_head(input_dim=representation_dim(encoder_model))
    return {"encoder": encoder_model, "projection_head": head}


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """What is built meanwhile has this Keras dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


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
