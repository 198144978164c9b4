"""gin that reads recipes of other people: it imports nothing, and ends.

gin itself imports what a recipe says, and the packages that an included path might lie in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from gin import config as gin_internals

# Of a recipe with all that it includes, each time that it does.
_MAX_FILES = 100


@contextlib.contextmanager
def sandboxed_gin() -> Iterator[None]:
    """While open, a recipe that imports is an ImportError, and one of too many files an OSError."""
    process_import, readers = gin_internals.ParseContext.process_import, gin_internals._FILE_READERS
    count = 0

    def refuse(context: gin_internals.ParseContext, statement: Any) -> None:
        raise ImportError(
            f"A recipe must not import. Received: {statement.format()!r}. Remove the line: all "
            "that a recipe can name is registered."
        )

    def read(path: str) -> IO[str]:
        nonlocal count
        count += 1
        if count > _MAX_FILES:
            raise OSError(
                f"A recipe must include at most {_MAX_FILES} files. Received: more, the last of "
                f"them {path}. One of them may include itself."
            )
        return open(path)

    gin_internals.ParseContext.process_import = refuse
    gin_internals._FILE_READERS = [(read, os.path.isfile)]
    try:
        yield
    finally:
        gin_internals.ParseContext.process_import = process_import
        gin_internals._FILE_READERS = readers
