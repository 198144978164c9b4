"""Errors that end a run, with their exit codes."""

from __future__ import annotations

import re


class RunError(Exception):
    """Ends the program with `exit_code` and its message, without a traceback."""

    exit_code = 1


class RequestError(RunError):
    """The request is invalid: flags, gin, data, or a checkpoint."""

    exit_code = 2


class InvalidArgument(RequestError, ValueError):
    """A function refuses a recipe's value, in a sentence for the recipe's author.

    Library code can catch it as a ValueError. A plain ValueError is a bug, and keeps its traceback.
    """


class DivergedError(RunError):
    """Training has diverged beyond recovery."""

    exit_code = 3


class PreemptedError(RunError):
    """The run was told to stop and has saved; the same command resumes it."""

    exit_code = 42


def cause(error: Exception) -> str:
    """Returns the line that says what happened, without TensorFlow's lines on where."""
    text = getattr(error, "message", None) or str(error)
    text = re.sub(r"\{\{function_node [^}]*\}\} ?| \[Op:\w+\].*", "", text)
    around = (" ", "\t", "Graph execution error", "Detected at node")
    lines = [line for line in text.splitlines() if line and not line.startswith(around)]
    return lines[0].rstrip(".") if lines else type(error).__name__
