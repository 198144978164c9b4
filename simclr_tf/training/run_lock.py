"""One run at a time trains in a model_dir.

The lock is the kernel's: it ends with the process, however that ends, so a killed run leaves no
lock behind. URLs (`gs://`) have no such lock, but a lease.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.training.failures import explain_write_errors
from simclr_tf.training.lease import Lease

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def exclusive(model_dir: str) -> Iterator[Callable[[], None]]:
    """While open, no other process can train in `model_dir`.

    A folder with foreign files, which a run refuses, is left unchanged.

    Yields:
      A function that raises RequestError if another run has taken the folder meanwhile, which a
      lock rules out and a lease does not.

    Raises:
      RequestError: another process trains there, or the folder cannot be written.
    """
    leased = "://" in model_dir
    with explain_write_errors(model_dir):
        foreign = _is_foreign(model_dir)
    if foreign or (fcntl is None and not leased):
        yield _nothing
        return
    with _lease(model_dir) if leased else _lock(model_dir) as still_ours:
        yield still_ours


def _is_foreign(model_dir: str) -> bool:
    """Returns whether the folder holds something that does not belong to a run."""
    gfile = tf.io.gfile
    if not gfile.isdir(model_dir) or gfile.isdir(os.path.join(model_dir, "checkpoints")):
        return False
    return bool(gfile.listdir(model_dir))


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _lease(model_dir: str) -> Iterator[Callable[[], None]]:
    lease = Lease(model_dir)
    with explain_write_errors(model_dir):
        lease.take()
    try:
        yield lease.check
    finally:
        lease.give_back()


@contextlib.contextmanager
def _lock(model_dir: str) -> Iterator[Callable[[], None]]:
    folder = os.path.join(model_dir, "checkpoints")
    with explain_write_errors(model_dir):
        os.makedirs(folder, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(lock, model_dir)
        yield _nothing
    finally:
        os.close(lock)


def _take(lock: int, model_dir: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 1000).decode(errors="replace").strip()
        raise RequestError(
            f"One run at a time may train in a --model_dir. Received: {model_dir}, in which "
            f"{holder or 'another process'} trains. Wait for it, stop it, or choose another "
            "--model_dir."
        ) from error
    except OSError as error:  # from a network file system, for example
        logging.warning(
            "the file system of %s has no locks (%s): nothing but you keeps a second run out",
            model_dir,
            error.strerror,
        )
    with explain_write_errors(model_dir):
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
