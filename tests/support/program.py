"""The program in processes that start at once: forked from one that has imported TensorFlow.

Importing takes longer than the rest of a tiny run. The server that forks has imported and done
nothing else: TensorFlow's threads, which no fork would copy, start in each process by themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from tests.support.small_resnet import register_small_depths


def rewrite_graphs(on: bool) -> None:
    """Turns Grappler on or off in this process; it takes a quarter of a tiny run's time.

    The last bits of numbers depend on it.
    """
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


class Program:
    """A run of the program, with what the tests use of the interface of subprocess.Popen.

    Args:
      arguments: of the command line.
      fault: what `tests/end_to_end/faults.py` injects into it, if anything.
      environment: variables beside those of this process.
    """

    def __init__(self, arguments: Sequence[str], fault: str | None, environment: Mapping[str, str]):
        handle, self._output = tempfile.mkstemp()
        os.close(handle)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.preloaded"])
        self._process = context.Process(
            target=_run, args=(list(arguments), fault, dict(environment), self._output)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: negative for a signal, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Waits for the end, and returns both streams in one, as they were written."""
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("the program", timeout, self._read())
        return self._read(), None

    def _read(self) -> str:
        output = pathlib.Path(self._output)
        text = output.read_text()
        output.unlink()
        return text


def _run(arguments: list[str], fault: str | None, environment: dict[str, str], output: str) -> None:
    """What the new process does."""
    from simclr_tf import run
    from tests.end_to_end import faults

    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    register_small_depths()
    rewrite_graphs(False)  # a person's runs, with the rewrites, are of test_run.py
    if fault:
        faults.inject(fault)
    sys.exit(run.main(arguments))
