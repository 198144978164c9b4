"""Several processes that end with the program, however it ends."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from simclr_tf.errors import RunError

T = TypeVar("T")
R = TypeVar("R")


def available() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(function: Callable[[T], R], tasks: Sequence[T], processes: int) -> Iterator[R]:
    """Calls a function of a module with each task, and yields what it returns as it comes.

    Raises:
      RunError: a process was killed.
    """
    if processes == 1 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, len(tasks)),
        # Forked, they would inherit TensorFlow's locks without the threads that hold them.
        multiprocessing.get_context("spawn"),
        _end_with_parent,
    )
    try:
        for future in concurrent.futures.as_completed([pool.submit(function, t) for t in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "Every process that reads images must live to its end. Received: one that was killed, "
            "for its use of memory or by a fault of a decoder. Give the same command again, which "
            "resumes, with a smaller --processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the program is killed, which a process of a pool does not notice."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
