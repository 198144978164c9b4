"""Names of files and folders as text that any file and terminal takes.

A file system allows names that are not UTF-8, and that hold newlines or other control characters.
Python has the bytes that it cannot decode as surrogates, which no text file takes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

from simclr_tf.errors import RequestError

_SURROGATE = re.compile("[\ud800-\udfff]")


def as_text(name: str) -> str:
    r"""Returns a name with the bytes that are not UTF-8 written out, such as `caf\xe9.jpg`."""

    def written(match: re.Match) -> str:
        code = ord(match[0])
        return rf"\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else rf"\u{code:04x}"

    return _SURROGATE.sub(written, name)


def shown(name: str) -> str:
    """Returns a name as one line of printable text."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in as_text(name)
    )


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Returns the first names as one line, and how many more there are."""
    names = list(names)
    more = len(names) - limit
    # Naming the last one takes no more room than counting it.
    first = names if more <= 1 else names[:limit]
    return ", ".join(map(shown, first)) + (f" and {more:,} more" if more > 1 else "")


def local(path: str) -> str:
    """Returns the path that a person gave, with `~` replaced by the home folder.

    Raises:
      RequestError: it is not UTF-8. TensorFlow, which opens it, takes no other names.
    """
    expanded = os.path.expanduser(path)
    if _SURROGATE.search(expanded):
        raise RequestError(
            f"The path of what TensorFlow reads or writes must be UTF-8. Received: {shown(path)}. "
            "Rename its folder, or give a link to it that has another name."
        )
    return expanded


def print_anything() -> None:
    """Makes standard output and error write characters that their encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
