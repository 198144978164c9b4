"""Places of images in files, and which of them two splits share."""

from __future__ import annotations

import collections
import os
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.names import shown


class Place(NamedTuple):
    """A file that is one image, or its records from number `first` to before `end`."""

    path: str
    first: int | None = None
    end: int | None = None

    @property
    def records(self) -> tuple[int, int]:
        return (0, 1) if self.first is None else (self.first, self.end)

    def name(self, record: int) -> str:
        return self.path if self.first is None else f"{self.path}, record {record}"


def shared_places(one: Sequence[Place], other: Sequence[Place]) -> str | None:
    """Returns in words how many images lie at places of both, by an example; None if none does.

    A link is the file that it leads to.
    """
    by_file: dict[Hashable, list[Place]] = collections.defaultdict(list)
    for place in one:
        by_file[_file(place.path)].append(place)
    count, example = 0, ""
    for place in other:
        for same in by_file.get(_file(place.path), ()):
            begins, ends = zip(place.records, same.records, strict=True)
            first, end = max(begins), min(ends)
            if first < end:
                count += end - first
                example = example or same.name(first)
    return f"{count:,} images, such as {shown(example)}" if count else None


def file_size(path: str) -> int:
    """Returns the length of a file in bytes, of the file that a link leads to."""
    return tf.io.gfile.stat(path).length if "://" in path else os.stat(path).st_size


def _file(path: str) -> Hashable:
    """Returns what is the same for all links to a file, hard ones too."""
    if "://" in path:
        return path
    try:
        state = os.stat(path)
    except OSError:  # whoever reads it says that it is gone
        return path
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(path)
