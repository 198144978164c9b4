"""Warns when no step has finished for unusually long: a waiting run looks like a working one."""

from __future__ import annotations

import threading
import time

from absl import logging


class StallWarning:
    """While open, warns if no step ends for unusually long; `moved()` reports that one did.

    The run continues by itself once whatever it waits for is available, so this only warns. It
    warns again each time the wait has doubled.

    Args:
      at_first: seconds allowed until the first report, which includes tracing and compiling, and
        from there to the second.
      at_least: later waits shorter than this many seconds never cause a warning.
      factor: multiple of the longest wait between two reports that causes a warning.
    """

    def __init__(self, at_first: float = 900.0, at_least: float = 30.0, factor: float = 10.0):
        self._patience = at_first
        self._at_least = at_least
        self._factor = factor
        self._longest = 0.0
        self._since: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> StallWarning:
        self._since = time.monotonic()
        self._first = True
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        with self._changed:
            self._since = None
            self._changed.notify()
        self._thread.join()

    def moved(self) -> None:
        """Reports that steps have ended."""
        with self._changed:
            now = time.monotonic()
            # The first wait is mostly tracing, and does not predict later ones.
            if not self._first:
                self._longest = max(self._longest, now - self._since)
            self._first = False
            self._since = now
            if self._longest:
                self._patience = max(self._at_least, self._factor * self._longest)
            self._changed.notify()

    def _look(self) -> None:
        with self._changed:
            while self._since is not None:
                waited = time.monotonic() - self._since
                if waited < self._patience:
                    self._changed.wait(self._patience - waited)
                    continue
                logging.warning(
                    "no step has ended for %.0f s. The run waits: is the data on a disk or behind "
                    "a network that does not answer, or another host gone? It goes on by itself "
                    "once there is data again.",
                    waited,
                )
                self._patience = 2 * waited
