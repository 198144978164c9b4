"""The recipe's data section: the source, its splits and the image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import gin

from simclr_tf.data import cache as memory_cache
from simclr_tf.data import folder_source, tfds_source, tfrecord_source
from simclr_tf.data.classes import numbered_as
from simclr_tf.data.source import Source
from simclr_tf.distribute.environment import tpu_name
from simclr_tf.errors import RequestError


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

    @property
    def name(self) -> str:
        """The spec, with the folder from the command line."""
        return f"{self.spec}{self.data_dir}" if self.spec.endswith(":") else self.spec

    def train(self) -> Source:
        return self.opened or open_source(self.spec, self.train_split, self.data_dir)

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
        """Returns a split that shares no image with the training split.

        Args:
          split: its name.
          setting: the parameter that names it, for the message.

        Raises:
          RequestError: the source would give training images again, or classes that training lacks.
        """
        source = open_source(self.spec, split, self.data_dir)
        if SOURCE_KINDS[self.spec.partition(":")[0]].disjoint_splits:
            return source
        train = self.train()
        if source.name == train.name or _overlap(source, train):
            raise RequestError(
                f"Evaluation needs images that were not trained on. Received: split {split!r} of "
                f"{self.spec}, which is {source.name} and has images of the split "
                f"{self.train_split!r}, {train.name}. Give folders of these names below the data, "
                f"or '{{split}}' in a tfrecord pattern, or set {setting}."
            )
        return numbered_as(train, source) if source.image_files else source


def _overlap(one: Source, other: Source) -> bool:
    both = one.image_files and other.image_files
    return both and not set(one.files_read()).isdisjoint(other.files_read())


@gin.configurable
def data(
    source: str = "shapes",
    image_size: int = 224,
    train_split: str = "train",
    eval_split: str = "test",
    shuffle_buffer: int = 8192,
    cache: Literal["none", "encoded", "decoded"] = "none",
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
      data_dir: the command line's `--data_dir`.
    """
    if shuffle_buffer < 1:
        raise RequestError(f"data.shuffle_buffer must be at least 1. Received: {shuffle_buffer}.")
    if image_size < 8:
        raise RequestError(f"data.image_size must be at least 8 pixels. Received: {image_size}.")
    return Dataset(
        source, image_size, train_split, eval_split, shuffle_buffer, data_dir, cache=cache
    )


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A kind of `data.source`, written `KIND` or `KIND:ARGUMENT`.

    Attributes:
      form: its form in a recipe.
      open: (argument, split, data_dir) -> the split.
      argument: whether an argument follows the colon: never, always, or with data_dir as default.
      disjoint_splits: whether its splits always share no image and have the same classes; splits
        of other kinds are compared before an evaluation.
    """

    form: str
    open: Callable[[str, str, str | None], Source]
    argument: Literal["none", "needed", "or data_dir"] = "needed"
    disjoint_splits: bool = False

    def takes(self, colon: str, argument: str, data_dir: str | None) -> bool:
        if self.argument == "none":
            return not colon
        return bool(argument or (self.argument == "or data_dir" and data_dir))


# Kinds by the word before the colon. A new kind is a module of this package and an entry here.
SOURCE_KINDS = {
    "shapes": SourceKind(
        "'shapes'",
        lambda _, split, data_dir: tfds_source.open_shapes(split, data_dir),
        argument="none",
        disjoint_splits=True,
    ),
    "tfds": SourceKind("'tfds:NAME'", tfds_source.open_tfds, disjoint_splits=True),
    "folder": SourceKind(
        "'folder:PATH' (or 'folder:' with --data_dir)",
        lambda path, split, data_dir: folder_source.open_folder(path or data_dir, split),
        argument="or data_dir",
    ),
    "tfrecord": SourceKind(
        "'tfrecord:GLOB'",
        lambda glob, split, _: tfrecord_source.open_tfrecord(glob.replace("{split}", split)),
    ),
}


def open_source(spec: str, split: str, data_dir: str | None) -> Source:
    """Opens one split of the data that `spec` names.

    Raises:
      RequestError: the spec is of no known kind, or its data do not exist.
    """
    word, colon, argument = spec.partition(":")
    kind = SOURCE_KINDS.get(word)
    if kind is None or not kind.takes(colon, argument, data_dir):
        *forms, last = (kind.form for kind in SOURCE_KINDS.values())
        raise RequestError(f"data.source must be {', '.join(forms)} or {last}. Received: {spec!r}.")
    return kind.open(argument, split, data_dir)
