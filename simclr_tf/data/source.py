"""Sources of images: the interface, and the two kinds whose images are reached by number.

`ArraySource`: decoded, equal-sized, in memory. `FileSource`: one file per image. `RecordSource` in
`record_source.py`: records in files, which are read in order only.

A new kind is one class. If its images are encoded and reached by number, it defines `reader`,
`select` and `_contents`; if they are read in order, it defines `blocks` and `stored` instead of
`reader`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from simclr_tf.data.bit_depth import FULL_DEPTH, stretched
from simclr_tf.data.first_valid import Block
from simclr_tf.data.order import Order
from simclr_tf.data.places import Place, file_size
from simclr_tf.names import as_text, listed

_COPIES = "ram://simclr_tf"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The interface of every source.

    Attributes:
      name: its name in the recipe and the run's plan.
      num_examples: N, the number of images.
      class_names: the names of the classes, in the order of the labels, or None without labels.
      labels: int64 [N], if known before an image is read, else None.
      bit_depth: bits in use of encoded images of 16 bits.
      cache: the kind of copies that `simclr_tf.data.cache.hold` made of its files, to read instead.
      in_memory: whether `images` holds all pixels, uint8 [N, H, W, 3]; else images are encoded.
      image_files: whether each of its files is one image, so that decoded copies can be held, and
        each class has a name rather than a number.
      left_out: what the data hold beside its images: kind -> number, such as {".webp": 30}.
      notes: what was assumed of the data, for the plan, each as a sentence without its stop.
    """

    name: str
    num_examples: int
    class_names: Sequence[str] | None
    labels: np.ndarray | None = None
    bit_depth: int = FULL_DEPTH
    cache: Literal["none", "encoded", "decoded"] = "none"
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()

    in_memory: ClassVar[bool] = False
    image_files: ClassVar[bool] = False

    @property
    def num_classes(self) -> int | None:
        return len(self.class_names) if self.class_names else None

    def class_counts(self) -> np.ndarray | None:
        """Counts the images of each class, int64 [C]; None if labels are not known yet."""
        if self.labels is None or not self.class_names:
            return None
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))

    def left_out_text(self) -> str:
        """Returns in words what is left out; nothing if nothing is."""
        return counted(self.left_out)

    def indices(self) -> np.ndarray:
        """Returns the numbers of the images, int64 [N], in the source's order."""
        return np.arange(self.num_examples)

    def name_of(self, index: int) -> str:
        """Returns where a person finds the image with this number."""
        return f"image {index} of {self.name}"

    def identity(self) -> str:
        """Identifies the images by names and numbers, independent of their location."""
        return self.name

    def fingerprint(self) -> str:
        """Returns a digest of images and labels; of files it takes name, length and time."""
        known = (self.name, self.num_examples, self.class_names)
        known += () if self.bit_depth == FULL_DEPTH else (self.bit_depth,)
        digest = hashlib.sha256(repr(known).encode())
        for part in self._contents():
            digest.update(part)
        return digest.hexdigest()

    def select(self, positions: Sequence[int] | np.ndarray) -> Source:
        """Selects the images at `positions` of the source's order, in the order of `positions`.

        The new source numbers its images from 0; `name_of` still names the file or record.

        Args:
          positions: from 0 to num_examples - 1.
        """
        raise NotImplementedError

    def sample_positions(self, count: int, seed: int) -> np.ndarray:
        """Draws `count` places, fewer than all, ascending; the same for the same seed."""
        positions = np.random.default_rng(seed).choice(self.num_examples, count, replace=False)
        return np.sort(positions)

    def files_read(self) -> list[str]:
        """Returns the files that hold its images, each once; none for images in memory."""
        return []

    def places(self) -> Sequence[Place] | None:
        """Returns where its images lie in files; None if that is not known."""
        return None

    def sizes(self) -> np.ndarray | None:
        """Returns the bytes of each encoded image, int64 [N], if no image is read for that."""
        return None

    def location(self, path: str) -> str:
        """Returns the path to read a file from: its own, or that of the copy that `cache` names."""
        if self.cache == "none":
            return path
        return f"{_COPIES}/{self.cache}/{urllib.parse.quote(os.fsencode(path), safe='')}"

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns, for tf.data: an image's number, int64 scalar -> encoded bytes, string scalar."""
        raise NotImplementedError

    def unpack(self, stored: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the encoded image and its label from the stored content, a string scalar."""
        return self.with_upper_bits(stored), label

    def with_upper_bits(self, encoded: tf.Tensor) -> tf.Tensor:
        """Returns an encoded image whose bits in use are the upper ones."""
        if self.bit_depth == FULL_DEPTH or self.cache == "decoded":
            return encoded
        return stretched(encoded, self.bit_depth)

    def stored(self) -> tf.data.Dataset:
        """Returns everything once, in the source's order: content, label and number."""
        read = dataclasses.replace(self, cache="none").reader()
        examples = (np.arange(self.num_examples), self.label_tensor(), self.indices())
        return tf.data.Dataset.from_tensor_slices(examples).map(
            lambda n, label, index: (read(n), label, index), tf.data.AUTOTUNE
        )

    def blocks(self, order: Order) -> tuple[tf.data.Dataset, Callable[..., Block]]:
        """Reads a host's images for training, `order.block_size` at a time.

        Returns:
          An endless dataset, and a function that makes a block of each of its elements inside a
          parallel map.
        """
        read, labels, count = self.reader(), self.label_tensor(), self.num_examples

        def opened(positions: tf.Tensor) -> Block:
            epoch, asked = order.at(positions, count)

            def other(n: tf.Tensor, attempt: tf.Tensor):
                i = order.shuffled((asked[n] + attempt) % count, epoch[n], count)
                return read(i), labels[i], i

            contents = tf.stack([read(i) for i in tf.unstack(asked)])
            return Block(epoch, contents, tf.gather(labels, asked), asked, other)

        return order.positions().batch(order.block_size, drop_remainder=True), opened

    def label_tensor(self) -> tf.Tensor:
        """Returns the labels, int64 [N], -1 where unknown."""
        if self.labels is None:
            return tf.fill([self.num_examples], tf.constant(-1, tf.int64))
        return tf.constant(self.labels, tf.int64)

    def _part(self, positions: np.ndarray, **parts: Any) -> Source:
        """Returns a copy with `parts` as its fields, which hold the images at `positions`."""
        return dataclasses.replace(
            self,
            name=f"{self.name} ({len(positions)} of {self.num_examples})",
            num_examples=len(positions),
            labels=None if self.labels is None else self.labels[positions],
            **parts,
        )

    def _contents(self) -> Iterator[bytes]:
        """Yields, in parts, what distinguishes these images and labels from others."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySource(Source):
    """Images in memory.

    Attributes:
      images: uint8 [N, H, W, 3].
      read_from: the places in files that they were read from, if known.
    """

    images: np.ndarray
    read_from: Sequence[Place] | None = None

    in_memory: ClassVar[bool] = True

    def select(self, positions: Sequence[int] | np.ndarray) -> Source:
        positions = np.asarray(positions)
        return self._part(positions, images=self.images[positions], read_from=None)

    def places(self) -> Sequence[Place] | None:
        return self.read_from

    def _contents(self) -> Iterator[bytes]:
        yield np.ascontiguousarray(self.images)
        yield _labels_as_bytes(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """One encoded image in each of `paths`."""

    paths: Sequence[str]

    image_files: ClassVar[bool] = True

    def name_of(self, index: int) -> str:
        return as_text(self.paths[index])

    def identity(self) -> str:
        root = os.path.commonpath(self.paths)
        return identity_of_files(os.path.relpath(path, root) for path in self.paths)

    def select(self, positions: Sequence[int] | np.ndarray) -> Source:
        positions = np.asarray(positions)
        return self._part(positions, paths=[self.paths[position] for position in positions])

    def files_read(self) -> list[str]:
        return list(self.paths)

    def places(self) -> list[Place]:
        return [Place(path) for path in self.paths]

    def sizes(self) -> np.ndarray:
        return np.array([file_size(path) for path in self.paths], np.int64)

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        paths = tf.constant([os.fsencode(self.location(path)) for path in self.paths])
        return lambda i: tf.io.read_file(paths[i])

    def _contents(self) -> Iterator[bytes]:
        yield _labels_as_bytes(self)
        yield from map(file_state, self.paths)


def counted(kinds: Mapping[str, int]) -> str:
    """Returns numbers with their kinds, the largest first: `30 .webp, 1 link that leads outside`.

    Args:
      kinds: plural or ending of files -> number.
    """
    ordered = sorted(((k, n) for k, n in kinds.items() if n), key=lambda kind: (-kind[1], kind[0]))
    return listed(f"{n:,} {_singular(kind) if n == 1 else kind}" for kind, n in ordered)


def _singular(kind: str) -> str:
    one = re.sub(r"\b(link|folder|file|image)s\b", r"\1", kind, count=1)
    return one.replace(" that lead ", " that leads ").replace(" that were ", " that was ")


def _labels_as_bytes(source: Source) -> bytes:
    return repr(None if source.labels is None else source.labels.tolist()).encode()


def identity_of_files(files: Iterable[str]) -> str:
    """Returns the number of files and a digest of their descriptions."""
    names = list(files)
    digest = hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()
    return f"{len(names)} files, {digest[:16]}"


def file_state(path: str) -> bytes:
    """Returns the name, length and time of a file, which change when the file does."""
    if "://" not in path:  # tf.io gives whole seconds, in which a file may change unseen
        state = os.stat(path)
        return repr((path, state.st_size, state.st_mtime_ns)).encode()
    state = tf.io.gfile.stat(path)
    return repr((path, state.length, state.mtime_nsec)).encode()
