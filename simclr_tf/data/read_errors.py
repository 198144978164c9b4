"""Which errors say that data could not be read, and that it is not the program's fault."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError, cause

# Files that are damaged, shorter than before, gone, or closed.
_KINDS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
)
# A kernel, a device or a platform that TensorFlow lacks is a NotFoundError, too.
_PROGRAM = re.compile(r"OpKernel|[Kk]ernel|platform|[Dd]evice|Op type")
# A disk or a network file system that is gone is an UnknownError with the system's words.
_DISK = tuple(
    os.strerror(getattr(errno, name))
    for name in ("EIO", "ESTALE", "ENOTCONN", "EREMOTEIO", "ENODEV")
    if hasattr(errno, name)
)


def is_read_error(error: Exception) -> bool:
    """Whether an error of TensorFlow says that files could not be read."""
    said = cause(error)
    if isinstance(error, tf.errors.UnknownError):
        return said.endswith(_DISK)
    return isinstance(error, _KINDS) and not _PROGRAM.search(said)


@contextlib.contextmanager
def reading_explained(source: Source) -> Iterator[None]:
    """Says in one sentence that images of `source`, which are read meanwhile, cannot be.

    Raises:
      RequestError: a file is damaged, gone or closed, or its disk is.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not is_read_error(error):
            raise
        raise RequestError(
            f"Every image of {source.name} must be readable. Received: {cause(error)}. Bring the "
            "file back, or leave it out."
        ) from error
