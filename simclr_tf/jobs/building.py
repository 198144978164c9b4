"""What several jobs do the same way: build models from a recipe, restore, write results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from simclr_tf.distribute.strategy import num_workers
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.models.networks import representation_dim


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
