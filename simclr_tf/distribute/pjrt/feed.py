"""Batches that a thread places on the devices ahead of the step that takes them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from simclr_tf.distribute.pjrt.client import Devices

# The batch of the running step, and the next one.
_ON_DEVICES = 2
# Seconds for which `close` waits for a source that does not answer.
_PATIENCE = 10.0


class Feed:
    """Places the batches, at most two at a time; `release` tells that a step with one has ended.

    An error of the source is raised by `take`, after the batches before it.

    Args:
      batches: for each tensor of a batch, the part of each device.
      devices: where they are placed.
    """

    def __init__(self, batches: Iterator[Sequence[Sequence[np.ndarray]]], devices: Devices):
        self._batches = batches
        self._devices = devices
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._room = threading.Semaphore(_ON_DEVICES)
        self._closed = False
        self._thread = threading.Thread(target=self._place, daemon=True)
        self._thread.start()

    def take(self, running: jax.Array | None) -> tuple[list[jax.Array], float]:
        """Returns the next batch, and the seconds for which the devices had nothing to do.

        Args:
          running: a result of the running step, if there is one.
        """
        if not self._ready.empty():
            return self._next(), 0.0
        if running is not None:
            running.block_until_ready()
        start = time.perf_counter()
        return self._next(), time.perf_counter() - start

    def release(self) -> None:
        """Tells that the step with the oldest batch has ended."""
        self._room.release()

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._room.release()
        self._thread.join(_PATIENCE)

    def _next(self) -> list[jax.Array]:
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _place(self) -> None:
        try:
            for tensors in self._batches:
                self._room.acquire()
                if self._closed:
                    return
                self._ready.put([self._devices.parts(parts) for parts in tensors])
        except BaseException as error:
            self._ready.put(error)
