"""A word to the person while nothing moves: a run that waits looks like one that works."""

from __future__ import annotations

import threading
import time

from absl import logging


class StallWarning:
    """While open, warns if no step ends for far longer than ever before; `moved()` says one did.

    The run goes on by itself once whatever it waits for is there, so that this only tells. It warns
    again each time the wait has doubled.

    Args:
      at_first: seconds until the first report, which includes tracing and compiling, and from
        there to the second.
      at_least: seconds that are never worth a warning later.
      factor: how many times the longest wait between two reports.
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
        """Steps have ended."""
        with self._changed:
            now = time.monotonic()
            # The first wait is mostly tracing, and says nothing of the later ones.
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
