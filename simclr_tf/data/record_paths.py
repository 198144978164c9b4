"""Finds the record files that a pattern stands for."""

from __future__ import annotations

import fnmatch
import glob
import os

import tensorflow as tf

from simclr_tf.names import local


def matching_files(pattern: str) -> list[str]:
    """Returns the files that match, sorted.

    A file or folder that is there by exactly this name comes first, as names may hold the brackets
    of patterns too.

    Raises:
      RequestError: the name of a file is not UTF-8.
    """
    if "://" in pattern:
        return sorted(tf.io.gfile.glob(pattern))
    folder, name = os.path.split(pattern)
    if os.path.isfile(pattern):
        found = [pattern]
    elif os.path.isdir(folder or "."):
        names = fnmatch.filter(os.listdir(folder or "."), name)
        found = [os.path.join(folder, name) for name in names]
    else:
        found = glob.glob(pattern)
    return sorted(local(path) for path in found if os.path.isfile(path))
