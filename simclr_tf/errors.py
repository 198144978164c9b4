"""The ways in which a run ends other than well, and the exit code of each."""

from __future__ import annotations

import re


class RunError(Exception):
    """Ends the program with `exit_code` and its message, without a traceback."""

    exit_code = 1


class RequestError(RunError):
    """The request cannot be carried out as it stands: flags, gin, data, or a checkpoint."""

    exit_code = 2


class InvalidArgument(RequestError, ValueError):
    """A function refuses a value that recipes give, in a sentence for who wrote the recipe.

    Library code can catch it as a ValueError. A plain ValueError is a bug, and keeps its traceback.
    """


class DivergedError(RunError):
    """Training has left the region from which it could recover."""

    exit_code = 3


class PreemptedError(RunError):
    """The run was asked to stop, has saved, and goes on when started again."""

    exit_code = 42


def cause(error: Exception) -> str:
    """The line that says what has happened; TensorFlow puts where in the program around it."""
    text = getattr(error, "message", None) or str(error)
    text = re.sub(r"\{\{function_node [^}]*\}\} ?| \[Op:\w+\].*", "", text)
    around = (" ", "\t", "Graph execution error", "Detected at node")
    lines = [line for line in text.splitlines() if line and not line.startswith(around)]
    return lines[0].rstrip(".") if lines else type(error).__name__
