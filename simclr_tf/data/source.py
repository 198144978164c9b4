"""Where images come from, in three kinds that differ in how an example is reached.

`ArraySource`: decoded, equal-sized, in memory. `FileSource`: one file an image, reached by number.
`RecordSource`: records in files, reached in order only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

RECORDS_PER_FILE = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What every source tells.

    Attributes:
      name: as the recipe and the run's plan say it.
      num_examples: how many images there are.
      class_names: the names of the classes, in the order of the labels, or None without labels.
      cache: which copies of its files `simclr_tf.data.cache.hold` has made, to be read instead.
    """

    name: str
    num_examples: int
    class_names: Sequence[str] | None
    cache: Literal["none", "encoded", "decoded"] = "none"

    @property
    def num_classes(self) -> int | None:
        return len(self.class_names) if self.class_names else None

    def indices(self) -> np.ndarray:
        """The numbers by which the images are known, int64 [N], in the source's order."""
        return np.arange(self.num_examples)

    def name_of(self, index: int) -> str:
        """Where a person finds the image with this number."""
        return f"image {index} of {self.name}"

    def identity(self) -> str:
        """Which images these are, wherever they lie, as far as names and numbers tell."""
        return self.name

    def fingerprint(self) -> str:
        """Changes when the images or labels do; files are known by name, length and time."""
        digest = hashlib.sha256(repr((self.name, self.num_examples, self.class_names)).encode())
        for part in self._contents():
            digest.update(part)
        return digest.hexdigest()

    def _contents(self) -> Iterator[bytes]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySource(Source):
    """Images uint8 [N, H, W, 3] and labels int64 [N] (or None), in memory."""

    images: np.ndarray
    labels: np.ndarray | None

    def _contents(self) -> Iterator[bytes]:
        yield np.ascontiguousarray(self.images)
        yield repr(None if self.labels is None else self.labels.tolist()).encode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """One encoded image in each of `paths`; labels int64 [N] or None."""

    paths: Sequence[str]
    labels: np.ndarray | None

    def name_of(self, index: int) -> str:
        return self.paths[index]

    def identity(self) -> str:
        root = os.path.commonpath(self.paths)
        return _identity(os.path.relpath(path, root) for path in self.paths)

    def _contents(self) -> Iterator[bytes]:
        yield repr(None if self.labels is None else self.labels.tolist()).encode()
        yield from map(_file_state, self.paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFile:
    """The `count` records of a TFRecord file that come after the first `skip`."""

    path: str
    skip: int
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource(Source):
    """Records of TFRecord files.

    Attributes:
      files: which records of which files.
      parse: serialized record -> (encoded image, label); the label is -1 where there is none.
    """

    files: Sequence[RecordFile]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

    def indices(self) -> np.ndarray:
        """File number * 2^20 + record number: known without reading the files before."""
        return np.concatenate(
            [
                number * RECORDS_PER_FILE + file.skip + np.arange(file.count)
                for number, file in enumerate(self.files)
            ]
        )

    def name_of(self, index: int) -> str:
        number, record = divmod(index, RECORDS_PER_FILE)
        return f"{self.files[number].path}, record {record}"

    def identity(self) -> str:
        return _identity(f"{os.path.basename(f.path)} {f.skip} {f.count}" for f in self.files)

    def _contents(self) -> Iterator[bytes]:
        for file in self.files:
            yield repr((file.skip, file.count)).encode() + _file_state(file.path)


def _identity(files: Iterable[str]) -> str:
    names = list(files)
    digest = hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()
    return f"{len(names)} files, {digest[:16]}"


def _file_state(path: str) -> bytes:
    if "://" not in path:  # tf.io tells whole seconds, in which a file may change unseen
        state = os.stat(path)
        return repr((path, state.st_size, state.st_mtime_ns)).encode()
    state = tf.io.gfile.stat(path)
    return repr((path, state.length, state.mtime_nsec)).encode()
