"""The recipe's data section: the source, its splits and the image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import gin

from simclr_tf.data import cache as memory_cache
from simclr_tf.data import folder_source, tfds_source, tfrecord_source
from simclr_tf.data.source import Source
from simclr_tf.distribute.environment import tpu_name
from simclr_tf.errors import RequestError
from simclr_tf.names import as_text, local


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

    @property
    def name(self) -> str:
        """The spec, with the folder from the command line."""
        kind, colon, argument = self.spec.partition(":")
        return as_text(f"{kind}:{self.data_dir}" if colon and not argument else self.spec)

    def train(self) -> Source:
        return self.opened or self._open(self.train_split)

    def _open(self, split: str) -> Source:
        return open_source(self.spec, split, self.data_dir, follow_links=self.follow_links)

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
          RequestError: the source would give training images again, or other classes.
        """
        return self.held_out(self.eval_split, "data.eval_split")

    def held_out(self, split: str, setting: str) -> Source:
        """Returns a split that shares no image with the training split.

        Args:
          split: its name.
          setting: the parameter that names it, for the message.

        Raises:
          RequestError: the source would give training images again, or other classes.
        """
        source = self._open(split)
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
        if source.image_files and source.class_names != train.class_names:
            raise RequestError(
                "Both splits must have the same classes. Received: "
                f"{train.class_names} in {train.name}, {source.class_names} in {source.name}."
            )
        return source


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
    follow_links: bool = False,
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
      data_dir: the command line's `--data_dir`.
    """
    if shuffle_buffer < 1:
        raise RequestError(f"data.shuffle_buffer must be at least 1. Received: {shuffle_buffer}.")
    if image_size < 8:
        raise RequestError(f"data.image_size must be at least 8 pixels. Received: {image_size}.")
    return Dataset(
        source,
        image_size,
        train_split,
        eval_split,
        shuffle_buffer,
        data_dir,
        cache=cache,
        follow_links=follow_links,
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
      settings: parameters of `data` that `open` takes too, by name.
    """

    form: str
    open: Callable[..., Source]
    argument: Literal["none", "needed", "or data_dir"] = "needed"
    disjoint_splits: bool = False
    settings: Sequence[str] = ()

    def takes(self, colon: str, argument: str, data_dir: str | None) -> bool:
        if self.argument == "none":
            return not colon
        return bool(argument or (self.argument == "or data_dir" and data_dir))


# Kinds by the word before the colon. A new kind is a module of this package and an entry here.
SOURCE_KINDS = {
    "shapes": SourceKind(
        "'shapes'",
        lambda _, split, data_dir: tfds_source.open_shapes(split, data_dir and local(data_dir)),
        argument="none",
        disjoint_splits=True,
    ),
    "tfds": SourceKind(
        "'tfds:NAME'",
        lambda name, split, data_dir: tfds_source.open_tfds(
            name, split, data_dir and local(data_dir)
        ),
        disjoint_splits=True,
    ),
    "folder": SourceKind(
        "'folder:PATH' (or 'folder:' with --data_dir)",
        lambda path, split, data_dir, follow_links: folder_source.open_folder(
            path or data_dir, split, follow_links
        ),
        argument="or data_dir",
        settings=("follow_links",),
    ),
    "tfrecord": SourceKind(
        "'tfrecord:GLOB'",
        lambda glob, split, _: tfrecord_source.open_tfrecord(local(glob).replace("{split}", split)),
    ),
}


def open_source(
    spec: str, split: str, data_dir: str | None, *, follow_links: bool = False
) -> Source:
    """Opens one split of the data that `spec` names.

    Raises:
      RequestError: the spec is of no known kind, or its data do not exist.
    """
    word, colon, argument = spec.partition(":")
    kind = SOURCE_KINDS.get(word)
    if kind is None or not kind.takes(colon, argument, data_dir):
        *forms, last = (kind.form for kind in SOURCE_KINDS.values())
        raise RequestError(f"data.source must be {', '.join(forms)} or {last}. Received: {spec!r}.")
    if follow_links and "follow_links" not in kind.settings:
        raise RequestError(
            "data.follow_links is for folders of images. Received: data.follow_links = True with "
            f"data.source = {spec!r}. Leave it out."
        )
    settings = {"follow_links": follow_links}
    return kind.open(argument, split, data_dir, **{name: settings[name] for name in kind.settings})
