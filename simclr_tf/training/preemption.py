"""SIGTERM and SIGINT: finish the running steps, save, and report it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from simclr_tf.distribute.hosts import spans_hosts
from simclr_tf.training.failures import OTHER_HOST, OWN_TPU, TPU_WORKER, Peer


@contextlib.contextmanager
def handling(handler: Callable) -> Iterator[None]:
    """While open, `handler` receives SIGTERM and SIGINT, where Python allows it.

    It allows it in the main thread alone. In another one nothing is installed, and the log says so.
    """
    if threading.current_thread() is not threading.main_thread():
        logging.info(
            "this run is not in the main thread, so SIGTERM and Ctrl-C do not stop it in order; "
            "after the end of the process the same command goes on from the last save"
        )
        yield
        return
    before = {n: signal.signal(n, handler) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: one that was not installed from Python, which cannot install it again.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


class StopRequest:
    """While open, SIGTERM and SIGINT only note that the run should stop.

    A second SIGINT interrupts at once, as a person at a keyboard expects.
    """

    def __init__(self):
        self.requested = False
        self._handling = handling(self._note)

    def __enter__(self) -> StopRequest:
        self._handling.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._handling.__exit__(*error)

    def _note(self, number: int, _) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def peer(strategy: tf.distribute.Strategy) -> Peer | None:
    """Returns what may be lost while this process stays; None if this is the only process.

    The workers of a TPU slice run no program of their own: one process, this one, drives them.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return TPU_WORKER if strategy.extended.num_hosts > 1 else OWN_TPU
    return OTHER_HOST if spans_hosts(strategy) else None
