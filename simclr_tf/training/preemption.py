"""SIGTERM and SIGINT: finish the running steps, save, and report it."""

from __future__ import annotations

import signal

import tensorflow as tf

from simclr_tf.distribute.hosts import spans_hosts
from simclr_tf.training.failures import OTHER_HOST, OWN_TPU, TPU_WORKER, Peer


class StopRequest:
    """While open, SIGTERM and SIGINT only note that the run should stop.

    A second SIGINT interrupts at once, as a person at a keyboard expects.
    """

    def __init__(self):
        self.requested = False
        self._handlers = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

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
