"""Runs commands of cells in processes of their own, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from simclr_tf import jobs

_WORKER = "simclr_tf.study.worker"
_LOOK = 1.0  # seconds between two calls of `keep`


class Processes:
    """While open, a worker waits that forks runs; the worker itself starts with the first one."""

    def __init__(self):
        self._worker: subprocess.Popen | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error) -> None:
        if self._worker is not None:
            if error[0] is not None:  # at a second Ctrl-C the run does not save either
                os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.stdin.close()
            self._worker.wait()

    def run(
        self,
        arguments: Sequence[str],
        *,
        log: pathlib.Path,
        claim: pathlib.Path,
        keep: Callable[[], bool],
    ) -> int:
        """Runs one command to its end, and returns its exit code, negative for a signal.

        Args:
          arguments: of `simclr_tf.run`.
          log: where its output is added.
          claim: the claim that the process holds too.
          keep: called every second; once it returns False, the run is told to save and stop.
        """
        worker = self._worker = self._worker or _started()
        request = {"arguments": list(arguments), "log": str(log), "claim": str(claim)}
        with contextlib.suppress(BrokenPipeError):  # a worker that has ended answers nothing
            _send(worker, request)
        told = False
        while not select.select([worker.stdout], [], [], _LOOK)[0]:
            if not told and not keep():
                _send(worker, "stop")
                told = True
        answer = worker.stdout.readline()
        if answer:
            return int(answer)
        self._worker = None  # the system may have ended it for lack of memory; the next is new
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        return worker.wait() or -signal.SIGKILL


def _started() -> subprocess.Popen:
    """Starts a worker with this program's modules, out of reach of the terminal's Ctrl-C."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    worker = subprocess.Popen(
        # Python warns of a fork beside threads; those of an import are idle, and end with it.
        [sys.executable, "-W", "ignore::DeprecationWarning:__main__", "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    _send(worker, {"extensions": jobs.EXTENSIONS, "modules": jobs.added_modules()})
    return worker


def _send(worker: subprocess.Popen, message: Any) -> None:
    worker.stdin.write(json.dumps(message).encode() + b"\n")
