"""A heartbeat object that gives one run a folder of an object store, which has no locks.

The object `checkpoints/owner.json` names its owner and is rewritten every few seconds. An object
that no longer changes was left by a killed run, and is taken over. Only changes count, so clocks
need not agree.

TensorFlow's file systems cannot create an object only if it does not exist, so races remain. Two
runs that start at the same instant both write; each then waits and reads again, and the one whose
object was overwritten exits. If a write takes longer than that wait, or a run was halted for longer
than the others' patience and then resumes, two may train until the next beat, at which one of them
finds that it is no longer the owner.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.training.failures import cause

# Seconds between two beats, and how many may be missing. A store may be slow for some time.
_INTERVAL, _PATIENCE = 15.0, 4
# Seconds after which a write that began before this run read the object should have ended.
_SETTLE = 5.0


class Lease:
    """Makes this run the owner of a folder, from `take` to `give_back`.

    Args:
      model_dir: the run's folder, a URL.
      sleep: waits for a number of seconds.
    """

    def __init__(self, model_dir: str, sleep: Callable[[float], object] = time.sleep):
        self._model_dir = model_dir
        self._path = os.path.join(model_dir, "checkpoints", "owner.json")
        self._sleep = sleep
        self._record = {
            "token": uuid.uuid4().hex,
            "owner": f"process {os.getpid()} on {socket.gethostname()}",
            "beat": 0,
        }
        self._successor: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def take(self) -> None:
        """Makes this run the owner.

        Raises:
          RequestError: another run is the owner, or became it at the same time.
        """
        self._await_silence()
        tf.io.gfile.makedirs(os.path.dirname(self._path))
        self._write()
        self._sleep(_SETTLE)
        self._look()
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Raises RequestError once another run has become the owner."""
        if self._successor is not None:
            raise _held(self._model_dir, self._successor)

    def beat(self) -> None:
        """Shows that this run lives; notices if it is no longer the owner."""
        self._look()
        if self._successor is None:
            self._record["beat"] += 1
            self._write()

    def give_back(self) -> None:
        """Ends the ownership, so that the next run does not have to wait."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._look()
            if self._successor is None:
                tf.io.gfile.remove(self._path)
        except tf.errors.OpError as error:  # it goes stale by itself
            logging.warning("%s stays behind: %s", self._path, cause(error))

    def _await_silence(self) -> None:
        """Returns when there is no owner, or one that has not beaten for a long time."""
        seen = _read(self._path)
        if seen is None:
            return
        logging.warning(
            "%s in %s: looking for up to %.0f s whether it still does",
            _sentence(seen),
            self._model_dir,
            _INTERVAL * _PATIENCE,
        )
        for _ in range(_PATIENCE):
            self._sleep(_INTERVAL)
            now = _read(self._path)
            if now is None:
                return
            if now != seen:
                raise _held(self._model_dir, _sentence(now))
        logging.warning("it has stopped without a word: this run takes over")

    def _keep_beating(self) -> None:
        while not self._ended.wait(_INTERVAL) and self._successor is None:
            try:
                self.beat()
            except tf.errors.OpError as error:  # the next beat may get through
                logging.warning("%s: a beat was lost: %s", self._path, cause(error))

    def _look(self) -> None:
        found = _read(self._path)
        if found is None:
            self._successor = "another run has trained and ended"
        elif found.get("token") != self._record["token"]:
            self._successor = _sentence(found)

    def _write(self) -> None:
        # A unique name: two writes at once do not mix, and a reader sees a whole object.
        partial = f"{self._path}.{self._record['token']}"
        with tf.io.gfile.GFile(partial, "w") as file:
            file.write(json.dumps(self._record))
        tf.io.gfile.rename(partial, self._path, overwrite=True)


def _read(path: str) -> dict[str, Any] | None:
    """Returns the record; None if there is none, an empty one if the object is not a record."""
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.loads(file.read())
    except tf.errors.NotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _sentence(record: dict[str, Any]) -> str:
    return f"{record.get('owner', 'another process')} trains"


def _held(model_dir: str, sentence: str) -> RequestError:
    return RequestError(
        f"One run at a time may train in a --model_dir. Received: {model_dir}, in which "
        f"{sentence}. Wait for it, stop it, or choose another --model_dir."
    )
