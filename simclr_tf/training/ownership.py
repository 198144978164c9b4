"""One run at a time trains in a model_dir.

The lock is the kernel's: it ends with the process, however that ends, so that a run that was killed
leaves none behind. Where paths are URLs (`gs://`) there is no such lock, and none is taken.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

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
    foreign = os.path.isdir(model_dir) and os.listdir(model_dir) and not os.path.isdir(folder)
    if fcntl is None or "://" in model_dir or foreign:
        yield
        return
    with writes_checked(model_dir):
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, "lock"), "a+")  # noqa: SIM115  closed below
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise RequestError(
                f"One run at a time may train in a --model_dir. Received: {model_dir}, in which "
                f"{lock.read().strip() or 'another process'} trains. Wait for it, stop it, or "
                "choose another --model_dir."
            ) from error
        with writes_checked(model_dir):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
        yield
