"""Writes small files atomically, and opens checkpoints at paths that look like patterns."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile

import tensorflow as tf

_PATTERN = re.compile(r"[\[\\]")


def write_text(path: str, text: str) -> None:
    """Writes a small file atomically: a reader sees all of it or none."""
    partial = f"{path}.partial"
    with tf.io.gfile.GFile(partial, "w") as file:
        file.write(text)
    tf.io.gfile.rename(partial, path, overwrite=True)


def checkpoint_prefix(prefix: str) -> str:
    """Returns a path by which TensorFlow finds a checkpoint whose folders have any names.

    It looks for the files by a pattern, in which brackets and backslashes do not stand for
    themselves. Then the path leads through a link, which lasts as long as this process.
    """
    if "://" in prefix or not _PATTERN.search(prefix):
        return prefix
    folder, name = os.path.split(os.path.abspath(prefix))
    link = os.path.join(_links().name, hashlib.sha256(folder.encode()).hexdigest()[:16])
    if not os.path.lexists(link):
        os.symlink(folder, link)
    return os.path.join(link, name)


@functools.cache
def _links() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="simclr_tf_")
