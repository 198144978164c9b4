"""Work beside the steps: one task at a time in a thread, whose error is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs one task at a time in a thread; the next check or wait raises its error."""

    def __init__(self):
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Starts `work` once the task before it has ended."""
        self.wait()
        # A daemon, so that an interrupt at the keyboard need not wait for it.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises the error of a task that has failed; does not wait for a running one."""
        if self._thread is None or self._thread.is_alive():
            return
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits for the task to end, and raises its error if it failed."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again by `check` or `wait`
            self._error = error
