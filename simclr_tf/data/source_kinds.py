"""The kinds of `data.source`, and what opens each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from absl import logging

from simclr_tf.data import folder_source, tfds_source, tfrecord_source
from simclr_tf.data.bit_depth import FULL_DEPTH
from simclr_tf.data.depth_check import with_bit_depth
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.names import local, shown


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A kind of `data.source`, written `KIND` or `KIND:ARGUMENT`.

    Attributes:
      form: its form in a recipe.
      open: (argument, split, data_dir) -> the split, from `settings` by name too.
      argument: whether an argument follows the colon: never, always, or with data_dir as default.
      disjoint_splits: whether its splits always share no image and have the same classes; splits
        of other kinds are compared before an evaluation.
      settings: parameters of `data` that `open` takes.
      copies: the largest share of a split that may be copies of training images, as published data
        sets have some that nobody can take out.
      split_apart: how to give splits that share no image.
    """

    form: str
    open: Callable[..., Source]
    argument: Literal["none", "needed", "or data_dir"] = "needed"
    disjoint_splits: bool = False
    settings: Sequence[str] = ()
    copies: float = 0.0
    split_apart: str = "Give data whose splits differ"

    def takes(self, colon: str, argument: str, data_dir: str | None) -> bool:
        if self.argument == "none":
            return not colon
        return bool(argument or (self.argument == "or data_dir" and data_dir))


_OF_TFDS = {
    "copies": 0.01,
    "split_apart": "Choose splits or slices that do not overlap, such as 'train[:90%]' and "
    "'train[90%:]'",
}

# Kinds by the word before the colon. A new kind is a module of this package and an entry here.
SOURCE_KINDS = {
    "shapes": SourceKind(
        "'shapes'",
        lambda _, split, data_dir: tfds_source.open_shapes(split, data_dir and local(data_dir)),
        argument="none",
        **_OF_TFDS,
    ),
    "tfds": SourceKind(
        "'tfds:NAME'",
        lambda name, split, data_dir, bit_depth: tfds_source.open_tfds(
            name, split, data_dir and local(data_dir), bit_depth
        ),
        settings=("bit_depth",),
        **_OF_TFDS,
    ),
    "folder": SourceKind(
        "'folder:PATH' (or 'folder:' with --data_dir)",
        lambda path, split, data_dir, follow_links: folder_source.open_folder(
            path or data_dir, split, follow_links
        ),
        argument="or data_dir",
        settings=("follow_links",),
        split_apart="Give folders of these names below the data, without copies or links",
    ),
    "tfrecord": SourceKind(
        "'tfrecord:GLOB'",
        lambda glob, split, _, tfrecord: tfrecord(local(glob).replace("{split}", split)),
        settings=("tfrecord",),
        split_apart="Write '{split}' in the pattern, for other files",
    ),
}


def open_source(
    spec: str,
    split: str,
    data_dir: str | None,
    *,
    follow_links: bool = False,
    bit_depth: int = FULL_DEPTH,
    tfrecord: Callable[..., Source] = tfrecord_source.open_tfrecord,
) -> Source:
    """Opens one split of the data that `spec` names; the parameters are those of `data`.

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
    settings = {"follow_links": follow_links, "bit_depth": bit_depth, "tfrecord": tfrecord}
    opened = kind.open(
        argument, split, data_dir, **{name: settings[name] for name in kind.settings}
    )
    source = opened if opened.in_memory else with_bit_depth(opened, bit_depth)
    _tell(source)
    return source


def _tell(source: Source) -> None:
    """Warns of what is left out of a source, and of what was assumed."""
    if source.left_out:
        logging.warning("left out of %s: %s", shown(source.name), source.left_out_text())
    for note in source.notes:
        logging.warning("%s: %s", shown(source.name), note)
