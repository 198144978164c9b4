"""Imports TensorFlow without the lines that it writes at every start.

TF_CPP_MIN_LOG_LEVEL hides what TensorFlow logs, but only once its libraries are loaded. The lines
on oneDNN and CUDA come before, so they are filtered out of the stream here.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator

_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_LINE = re.compile(rb"([IW])\d{4} [\d:.]+ +\d+ \S+:\d+\] ")
# Lines without a level, and of a level that means nothing here.
_NOISE = (
    b"WARNING: All log messages before absl::InitializeLog()",
    b"Attempting to register factory for plugin",
)
_LOADED = b"\0loaded\n"


def import_tensorflow() -> None:
    """Imports TensorFlow for a program that starts; its messages are hidden as TensorFlow can.

    Without TF_CPP_MIN_LOG_LEVEL in the environment, that is 3: nothing but fatal errors later on.
    The lines that come before TensorFlow reads the variable are hidden by it too, errors excepted.
    All are shown if the variable is 0, if the import fails, or if it ends the process.
    """
    level = os.environ.setdefault(_VARIABLE, "3")
    hidden = b"IW"[: int(level)] if level.isdecimal() else b""
    loaded = "tensorflow" in sys.modules
    with _filtered(hidden) if hidden and not loaded else contextlib.nullcontext():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _filtered(hidden: bytes) -> Iterator[None]:
    """While open, another process passes on what is written to the error stream, line by line.

    A process of its own still tells the last words of one that is killed while it imports.
    """
    sys.stderr.flush()
    ours, (reading, writing) = os.dup(2), os.pipe()
    helper = os.fork()
    if not helper:
        os.close(writing)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _pass_on(reading, ours, hidden)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, 2)
    try:
        yield
        os.write(writing, _LOADED)
    finally:
        sys.stderr.flush()
        os.dup2(ours, 2)
        os.close(ours)
        os.close(writing)
        os.waitpid(helper, 0)


def _pass_on(reading: int, target: int, hidden: bytes) -> None:
    """Copies lines but hidden ones, which follow if the writer ends without having loaded."""
    held = []
    with os.fdopen(reading, "rb") as lines, os.fdopen(target, "wb", buffering=0) as shown:
        for line in lines:
            if line.endswith(_LOADED):
                shown.write(line.removesuffix(_LOADED))
                return
            found = _LINE.match(line)
            if (found and found[1] in hidden) or any(noise in line for noise in _NOISE):
                held.append(line)
            else:
                shown.write(line)
        shown.write(b"".join(held))
