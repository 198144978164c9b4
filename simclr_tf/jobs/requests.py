"""What jobs refuse, and which errors are the fault of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data.read_errors import is_read_error
from simclr_tf.distribute.strategy import num_workers
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.training.mishaps import UNREACHABLE


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


def check_seed(job: str, seed: int) -> None:
    """Raises RequestError unless random numbers can be drawn by `seed`."""
    if not 0 <= seed < 2**32:
        raise RequestError(f"{job}.seed must be from 0 to 2**32 - 1. Received: {seed}.")


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
