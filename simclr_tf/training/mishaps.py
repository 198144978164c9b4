"""What goes wrong outside this program while it trains, in words and with the right exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data.read_errors import is_read_error
from simclr_tf.errors import PreemptedError, RequestError, cause

# What the collectives of the hosts that are left fail with, depending on where they are.
_LOST_HOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
# What writing fails with: no room, no permission, a disk that has become read-only or is gone.
_WRITES = (
    OSError,
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def steps_checked(model_dir: str, *, several_hosts: bool) -> Iterator[None]:
    """Says what has happened where steps end for want of data, of memory or of another host.

    Raises:
      RequestError: the data cannot be read any longer, or a step does not fit into memory.
      PreemptedError: another host is gone; what was saved stands.
    """
    try:
        yield
    except _LOST_HOST as error:
        if not several_hosts:
            raise
        raise PreemptedError(
            f"Another host of this run is gone ({cause(error)}). Start the same command on "
            f"every host: all go on from the last checkpoint in {model_dir}."
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        raise RequestError(
            f"A step must fit into the device's memory. Received: {cause(error)}. Set "
            "pretrain.microbatch_size or a smaller batch, or resnet.remat."
        ) from error
    except tf.errors.OpError as error:
        if not is_read_error(error):
            raise
        raise RequestError(
            f"The data must stay as they were when the run began. Received: {cause(error)}. "
            "Bring them back, and the same command goes on from the last checkpoint in "
            f"{model_dir}."
        ) from error


@contextlib.contextmanager
def writes_checked(model_dir: str) -> Iterator[None]:
    """Says so where the run's folder cannot be written.

    Raises:
      RequestError: no room, no permission, or the disk is gone; what was saved stands.
    """
    try:
        yield
    except _WRITES as error:
        raise RequestError(
            f"{model_dir} must be writable and have room. Received: {cause(error)}. What was "
            "saved before stands, and the same command goes on from there."
        ) from error
