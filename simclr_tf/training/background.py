"""Work beside the steps: one piece at a time in a thread, whose error is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs one piece of work at a time; what it raises is raised by the next look at it."""

    def __init__(self):
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Starts `work`, once the piece before it has ended."""
        self.wait()
        # A daemon, so that an interrupt at the keyboard need not wait for it.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what the work has failed with; work that still goes on is left alone."""
        if self._thread is None or self._thread.is_alive():
            return
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits for the work to end, and raises what it has failed with."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again where somebody looks
            self._error = error
