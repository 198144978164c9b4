"""The ways in which a run ends other than well, and the exit code of each."""

from __future__ import annotations


class RunError(Exception):
    """Ends the program with `exit_code` and its message, without a traceback."""

    exit_code = 1


class RequestError(RunError):
    """The request cannot be carried out as it stands: flags, gin, data, or a checkpoint."""

    exit_code = 2


class DivergedError(RunError):
    """Training has left the region from which it could recover."""

    exit_code = 3


class PreemptedError(RunError):
    """The run was asked to stop, has saved, and goes on when started again."""

    exit_code = 42
