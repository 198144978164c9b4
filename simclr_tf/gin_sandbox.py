"""Makes gin safe for other people's recipes (no imports, bounded includes), and accepts old names.

gin by itself imports the modules that a recipe names, and packages that may hold an included path.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from absl import logging
from gin import config as gin_internals

from simclr_tf.renamed import name_of_today

# Files of a recipe, counting each inclusion.
_MAX_FILES = 100


@contextlib.contextmanager
def sandboxed_gin(folders: Sequence[str]) -> Iterator[None]:
    """Makes gin raise ImportError if a recipe imports, and OSError if it includes too many files.

    Parameters may have their names from older versions.

    Args:
      folders: where gin looks for included files, after the working directory; no longer later on,
        when this process may load another recipe.
    """
    process_import, readers = gin_internals.ParseContext.process_import, gin_internals._FILE_READERS
    prefixes = gin_internals._LOCATION_PREFIXES
    bind_parameter = gin_internals.bind_parameter
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
    gin_internals._LOCATION_PREFIXES = [*prefixes, *folders]
    gin_internals.bind_parameter = functools.partial(_bind_by_name_of_today, bind_parameter)
    try:
        yield
    finally:
        gin_internals.bind_parameter = bind_parameter
        gin_internals.ParseContext.process_import = process_import
        gin_internals._FILE_READERS = readers
        gin_internals._LOCATION_PREFIXES = prefixes


def _bind_by_name_of_today(bind: Callable, key: tuple[str, str, str], value: Any) -> None:
    scope, selector, parameter = key
    name = f"{selector.rpartition('.')[2]}.{parameter}"
    today = name_of_today(name)
    if today != name:
        logging.warning("%s is called %s by now: rename it in the recipe", name, today)
        selector, _, parameter = today.partition(".")
    bind((scope, selector, parameter), value)
