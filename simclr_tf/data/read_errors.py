"""Tells errors of reading data from faults of the program."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError, cause

# Files that are damaged, truncated, deleted, or not permitted.
_KINDS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
)
# TensorFlow also raises NotFoundError for a kernel, a device or a platform that it lacks.
_PROGRAM = re.compile(r"OpKernel|[Kk]ernel|platform|[Dd]evice|Op type")
# A lost disk or network file system is an UnknownError with the system's message.
_DISK = tuple(
    os.strerror(getattr(errno, name))
    for name in ("EIO", "ESTALE", "ENOTCONN", "EREMOTEIO", "ENODEV")
    if hasattr(errno, name)
)
# The system's messages of files.
_SYSTEM = tuple(os.strerror(code) for code in errno.errorcode)


def is_read_error(error: Exception) -> bool:
    """Returns whether an error of TensorFlow says that files could not be read."""
    said = cause(error)
    if isinstance(error, tf.errors.UnknownError):
        return said.endswith(_DISK)
    return isinstance(error, _KINDS) and not _PROGRAM.search(said)


@contextlib.contextmanager
def names_decoded() -> Iterator[None]:
    """Raises an error of reading as TensorFlow would if the file's name were UTF-8.

    Python cannot decode a message with another name, and raises UnicodeDecodeError in its place.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        said = error.object.decode("utf-8", "backslashreplace")
        if not any(words in said for words in _SYSTEM):
            raise
        raise tf.errors.NotFoundError(None, None, said) from error


@contextlib.contextmanager
def reading_explained(source: Source) -> Iterator[None]:
    """Explains in one sentence an error of reading images of `source` inside the context.

    Raises:
      RequestError: a file is damaged, deleted or not permitted, or its disk is lost.
    """
    try:
        with names_decoded():
            yield
    except tf.errors.OpError as error:
        if not is_read_error(error):
            raise
        raise RequestError(
            f"Every image of {source.name} must be readable. Received: {cause(error)}. Bring the "
            "file back, or leave it out."
        ) from error
