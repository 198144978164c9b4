"""Where images come from, in three kinds that differ in how an example is reached.

`ArraySource`: decoded, equal-sized, in memory. `FileSource`: one file an image, reached by number.
`RecordSource`: records in files, reached in order only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What every source tells.

    Attributes:
      name: as the recipe and the run's plan say it.
      num_examples: how many images there are.
      class_names: the names of the classes, in the order of the labels, or None without labels.
    """

    name: str
    num_examples: int
    class_names: Sequence[str] | None

    @property
    def num_classes(self) -> int | None:
        return len(self.class_names) if self.class_names else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySource(Source):
    """Images uint8 [N, H, W, 3] and labels int64 [N] (or None), in memory."""

    images: np.ndarray
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """One encoded image in each of `paths`; labels int64 [N] or None."""

    paths: Sequence[str]
    labels: np.ndarray | None


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
