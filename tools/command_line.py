"""What the command lines of tools share: the end of a wrong request, paths with `~`, recipes.

Importing it imports nothing of the package, since some tools must start without it.
"""

from __future__ import annotations

import argparse
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


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags by which `simclr_tf.run` takes a recipe and its data."""
    parser.add_argument("--gin_file", action="append", default=[], type=address, help="a recipe")
    parser.add_argument("--gin_bindings", action="append", default=[], help="one binding")
    parser.add_argument("--data_dir", type=address, help="as for simclr_tf.run")


def given_recipes(options: argparse.Namespace) -> list[str]:
    """Returns the recipes that were given, one at least, or raises RequestError."""
    from simclr_tf.errors import RequestError

    if not options.gin_file:
        raise RequestError("A recipe must be given, such as --gin_file=gin/cifar10_cpu.gin.")
    return options.gin_file


def load_recipes(files: list[str], bindings: list[str]) -> None:
    """Loads recipes as `pretrain` does, for a tool that assembles its run."""
    from simclr_tf import config, jobs

    jobs.load()
    config.load(files, bindings)
    config.check({"pretrain", *config.recipe_jobs()})


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
