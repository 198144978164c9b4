"""Two threads in turn, without clocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def entered_elsewhere(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """Another thread is inside `context` meanwhile."""
    entered, left = threading.Event(), threading.Event()

    def hold() -> None:
        with context:
            entered.set()
            left.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        left.set()
        thread.join()
