"""One run at a time trains in a model_dir.

The lock is the kernel's: it ends with the process, however that ends, so that a run that was killed
leaves none behind. Where paths are URLs (`gs://`) there is no such lock, and none is taken.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.training.mishaps import writes_checked

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def exclusive(model_dir: str) -> Iterator[None]:
    """Meanwhile no other process may train in `model_dir`.

    A folder in which something else lies, which a run refuses, is left as it is.

    Raises:
      RequestError: another process does, or the folder cannot be written.
    """
    folder = os.path.join(model_dir, "checkpoints")
    if fcntl is None or "://" in model_dir:
        yield
        return
    with writes_checked(model_dir):
        foreign = os.path.isdir(model_dir) and os.listdir(model_dir) and not os.path.isdir(folder)
        if not foreign:
            os.makedirs(folder, exist_ok=True)
            lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
    if foreign:
        yield
        return
    try:
        _take(lock, model_dir)
        yield
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
    except OSError as error:  # of a network's file system, say
        logging.warning(
            "the file system of %s has no locks (%s): nothing but you keeps a second run out",
            model_dir,
            error.strerror,
        )
    with writes_checked(model_dir):
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
