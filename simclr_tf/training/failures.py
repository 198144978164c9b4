"""Failures outside this program during training: explains them, with the right exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.data.read_errors import is_read_error, names_decoded
from simclr_tf.errors import PreemptedError, RequestError, cause

# Errors raised when something outside this process cannot be reached.
UNREACHABLE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
# Messages of a server or a TPU that was lost and is back, under any class of error: it has lost
# the state that this process had put there. From TensorFlow's own judgement of lost workers
# (cluster_coordinator.py), from its eager service, and from reports about TPUs
# (https://github.com/tensorflow/tensorflow/issues/43707).
_FORGOTTEN = (
    "Unable to find a context_id",
    "Unable to find the relevant tensor remote_handle",
    "Primary device is not remote",
    "The TPU system has not been initialized",
)


class Peer(NamedTuple):
    """Something that takes part in a run and may be lost while this process stays.

    Attributes:
      name: in words.
      errors: raised here once it is gone.
    """

    name: str
    errors: tuple[type[tf.errors.OpError], ...]


# On the remaining hosts, collectives and calls fail in different ways, depending on where they are.
OTHER_HOST = Peer("Another host of this run", (*UNREACHABLE, tf.errors.InternalError))
TPU_WORKER = Peer("A worker of the TPU slice", OTHER_HOST.errors)
# An internal error of a TPU in this host ("Core halted unexpectedly") may be the program's fault.
OWN_TPU = Peer("The TPU", UNREACHABLE)
# Errors of writing: no room, no permission, a disk that has become read-only or is gone.
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
def explain_lost_peers(model_dir: str, peer: Peer | None) -> Iterator[None]:
    """Explains errors that mean that another participant of the run is gone.

    Args:
      model_dir: the run's folder.
      peer: what may be gone; None if there is none, and then nothing is caught.

    Raises:
      PreemptedError: it is gone; saved checkpoints remain.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if peer is None or not _tells_of_loss(error, peer):
            raise
        raise PreemptedError(
            f"{peer.name} is gone ({cause(error)}). Start the same command wherever it ran, once "
            f"all that takes part is there again: it goes on from the last save in {model_dir}."
        ) from error


def _tells_of_loss(error: tf.errors.OpError, peer: Peer) -> bool:
    return isinstance(error, peer.errors) or any(words in error.message for words in _FORGOTTEN)


@contextlib.contextmanager
def explain_step_errors(
    model_dir: str, *, peer: Peer | None, when_out_of_memory: str
) -> Iterator[None]:
    """Explains errors of steps: missing data, missing memory or a lost peer.

    Args:
      model_dir: the run's folder.
      peer: what may be gone, see `explain_lost_peers`.
      when_out_of_memory: advice if a step does not fit into memory.

    Raises:
      RequestError: the data cannot be read any longer, or a step does not fit into memory.
      PreemptedError: the peer is gone, see `explain_lost_peers`.
    """
    try:
        with explain_lost_peers(model_dir, peer), names_decoded():
            yield
    except tf.errors.ResourceExhaustedError as error:
        raise RequestError(
            f"A step must fit into the device's memory. Received: {cause(error)}. "
            f"{when_out_of_memory}"
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
def explain_write_errors(model_dir: str) -> Iterator[None]:
    """Explains errors of writing the run's folder.

    Raises:
      RequestError: no room, no permission, or the disk is gone; saved checkpoints remain.
    """
    try:
        yield
    except _WRITES as error:
        raise RequestError(
            f"{model_dir} must be writable and have room. Received: {cause(error)}. What was "
            "saved before stands, and the same command goes on from there."
        ) from error


@contextlib.contextmanager
def as_request_error() -> Iterator[None]:
    """While a run is assembled, turns errors caused outside this program into RequestError.

    These are a file that is missing or cannot be read, a package that is not installed, and too
    little memory. Any other error is a bug and keeps its traceback.
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
