"""What the command lines of all tools share: the end of a wrong request, and paths with `~`.

Imports nothing of the package, since some tools must start without it.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

WRONG_REQUEST = 2


def path(text: str) -> pathlib.Path:
    """Returns the path of an argument; a shell leaves the `~` of --flag=~/folder to the program."""
    return pathlib.Path(address(text))


def address(text: str) -> str:
    """Does the same for a path that may be a gs:// address, of which pathlib would lose a slash."""
    return os.path.expanduser(text)


def refusing(main: Callable[..., int]) -> Callable[..., int]:
    """Makes a tool's `main` answer a wrong request with one message, and return its exit code.

    A request is wrong if the package says so, by an error with an `exit_code`, or if the system
    cannot read or write what it names. Any other error is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def answered(*arguments: Any) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a path may hold bytes that are no text
                stream.reconfigure(errors="backslashreplace")
        try:
            return main(*arguments)
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None and not isinstance(error, OSError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return WRONG_REQUEST if code is None else code

    return answered
