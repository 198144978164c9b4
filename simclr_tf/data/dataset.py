"""The recipe's data section: the source, its splits and the image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import gin

from simclr_tf.data import cache as memory_cache
from simclr_tf.data import tfrecord_source
from simclr_tf.data.bit_depth import FULL_DEPTH
from simclr_tf.data.classes import numbered_as
from simclr_tf.data.overlap import shared_images
from simclr_tf.data.read_errors import reading_explained
from simclr_tf.data.source import Source
from simclr_tf.data.source_kinds import SOURCE_KINDS, SourceKind, open_source
from simclr_tf.distribute.environment import tpu_name
from simclr_tf.errors import RequestError
from simclr_tf.names import as_text


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Sources by split, opened on demand; `opened` replaces the training split if given."""

    spec: str
    image_size: int
    train_split: str
    eval_split: str
    shuffle_buffer: int
    data_dir: str | None
    opened: Source | None = None
    cache: str = "none"
    follow_links: bool = False
    bit_depth: int = FULL_DEPTH
    tfrecord: Callable[..., Source] = tfrecord_source.open_tfrecord
    _opened: dict[str, Source] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _held_out: dict[str, Source] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """The spec, with the folder from the command line."""
        kind, colon, argument = self.spec.partition(":")
        return as_text(f"{kind}:{self.data_dir}" if colon and not argument else self.spec)

    def train(self) -> Source:
        return self.opened or self._open(self.train_split)

    def held(self, source: Source, tpu: str) -> Source:
        """Reads one of its sources into memory if the recipe says so.

        Args:
          source: a source that every epoch reads.
          tpu: the command line's `--tpu`.

        Raises:
          RequestError: it would not fit, or other processes would read it.
        """
        if self.opened or self.cache == "none":
            return source
        name = tpu_name(tpu)
        if name not in ("none", "local"):
            raise RequestError(
                "What data.cache holds is in this process. Received: "
                f"data.cache = {self.cache!r} with --tpu={name}, whose workers read the data in "
                "processes of their own. Bind data.cache = 'none'."
            )
        return memory_cache.hold(source, self.cache)

    def evaluation(self) -> Source:
        """Returns the split to evaluate on, which must differ from the training split.

        Raises:
          RequestError: the source would give training images again, or classes that training lacks.
        """
        return self.held_out(self.eval_split, "data.eval_split")

    def held_out(self, split: str, setting: str) -> Source:
        """Returns a split that shares no image with the training split; compares them once.

        Args:
          split: its name.
          setting: the parameter that names it, for the message.

        Raises:
          RequestError: the source would give training images again, or classes that training lacks.
        """
        if split not in self._held_out:
            self._held_out[split] = self._apart(split, setting)
        return self._held_out[split]

    def _apart(self, split: str, setting: str) -> Source:
        source = self._open(split)
        if self._kind.disjoint_splits:
            return source
        train = self.train()
        self._check_apart(source, split, setting, train, self.train_split)
        if setting != "data.eval_split":
            test = self._open(self.eval_split)
            self._check_apart(source, split, setting, test, self.eval_split)
        return numbered_as(train, source) if source.image_files else source

    @property
    def _kind(self) -> SourceKind:
        return SOURCE_KINDS[self.spec.partition(":")[0]]

    def _open(self, name: str) -> Source:
        """Opens a split, once."""
        if name not in self._opened:
            self._opened[name] = open_source(
                self.spec,
                name,
                self.data_dir,
                follow_links=self.follow_links,
                bit_depth=self.bit_depth,
                tfrecord=self.tfrecord,
            )
        return self._opened[name]

    def _check_apart(
        self, source: Source, split: str, setting: str, other: Source, other_split: str
    ) -> None:
        """Refuses images that were trained on; of those to test on, copies are only warned of."""
        trained = other_split == self.train_split
        with reading_explained(source):
            shared = shared_images(source, other, self._kind.copies if trained else 1.0)
        if shared:
            used = "trained" if trained else "tested"
            raise RequestError(
                f"Evaluation needs images that were not {used} on. Received: split {split!r} of "
                f"{self.spec}, which is {source.name} and has images of the split "
                f"{other_split!r}, {other.name}: {shared}. {self._kind.split_apart}, or set "
                f"{setting}."
            )


@gin.configurable
def data(
    source: str = "shapes",
    image_size: int = 224,
    train_split: str = "train",
    eval_split: str = "test",
    shuffle_buffer: int = 8192,
    cache: Literal["none", "encoded", "decoded"] = "none",
    follow_links: bool = False,
    bit_depth: int = FULL_DEPTH,
    tfrecord: Callable[..., Source] = tfrecord_source.open_tfrecord,
    *,
    data_dir: str | None,
) -> Dataset:
    """Returns the data set that a recipe describes.

    Args:
      source: a kind of `SOURCE_KINDS`: `shapes`, `tfds:NAME[/CONFIG]`, `folder:PATH`
        (`folder:` alone is `data_dir`) or `tfrecord:GLOB`, in which `{split}` stands for the split.
      image_size: side of a view in pixels.
      train_split: split to train on.
      eval_split: labelled split to evaluate on; pretraining never opens it.
      shuffle_buffer: encoded images held in memory to shuffle record files.
      cache: what to hold in memory of training images in files: `encoded`, the files unchanged;
        `decoded`, their pixels (not for record files); or `none`.
      follow_links: whether links in a folder of images are followed where they lead out of it.
      bit_depth: bits in use of images of 16 bits, such as the 12 of medical scanners: 2^12 - 1 is
        white then.
      tfrecord: opens record files, and says which of their features are read.
      data_dir: the command line's `--data_dir`.
    """
    if shuffle_buffer < 1:
        raise RequestError(f"data.shuffle_buffer must be at least 1. Received: {shuffle_buffer}.")
    if image_size < 8:
        raise RequestError(f"data.image_size must be at least 8 pixels. Received: {image_size}.")
    if not 8 <= bit_depth <= 16:
        raise RequestError(f"data.bit_depth must be from 8 to 16. Received: {bit_depth}.")
    return Dataset(
        spec=source,
        image_size=image_size,
        train_split=train_split,
        eval_split=eval_split,
        shuffle_buffer=shuffle_buffer,
        data_dir=data_dir,
        cache=cache,
        follow_links=follow_links,
        bit_depth=bit_depth,
        tfrecord=tfrecord,
    )
