"""Finds the folder of a split, and refuses to read other splits in its place."""

from __future__ import annotations

import difflib
import os
import pathlib
import re
from collections.abc import Sequence

from simclr_tf.data.folder_scan import is_system, within
from simclr_tf.errors import RequestError
from simclr_tf.names import listed, shown

# A folder without splits is this split.
WHOLE = "train"

# Names of splits as data sets have them: Train, val, test1, train2017, train_images.
_SPLIT = re.compile(
    r"((?P<train>train|training)|test|testing|val|valid|validation)"
    r"([-_ ]?(\d+|images?|imgs?|set|data))?",
    re.IGNORECASE,
)
_ALL = "To read all images below the data as one split, bind data.train_split = '.'."


def split_folder(data: pathlib.Path, split: str, follow_links: bool) -> pathlib.Path:
    """Returns the folder of a split: `data/split`, or `data` itself where it has no splits.

    Args:
      data: the folder of images.
      split: the name of a folder; 'train' is also the whole of a folder without splits.
      follow_links: whether the split may lie outside of the data.

    Raises:
      RequestError: the split is not there, or lies outside.
    """
    folder = data / split
    is_below = within(os.path.abspath(folder), os.path.abspath(data))
    if not is_below or folder.is_dir():
        _check_inside(folder, data, is_below, follow_links)
        return folder
    beside = folders_of(folder.parent if folder.parent.is_dir() else data)
    if split != WHOLE or folder.is_symlink() or any(map(is_split, beside)):
        raise RequestError(_not_there(data, split, beside))
    return data


def is_split(name: str) -> bool:
    """Returns whether a folder of this name is a split, such as Train, val or test2017."""
    return _SPLIT.fullmatch(name) is not None


def folders_of(folder: pathlib.Path) -> list[str]:
    """Returns the names of the folders in a folder, links to folders included."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in found if not is_system(name))


def training_classes(data: pathlib.Path, root: pathlib.Path) -> set[str]:
    """Returns the folders of the training split beside `root`, the folder of another split.

    By these a split that has a single class knows its folder as a class.
    """
    matches = {name: _SPLIT.fullmatch(name) for name in folders_of(data)}
    trained = [name for name, match in matches.items() if match and match["train"]]
    found = [set(folders_of(data / name)) for name in trained] if root.parent == data else []
    return set().union(*(names for names in found if len(names) > 1 and root.name not in trained))


def refuse_deeper_splits(data: pathlib.Path, files: Sequence[str]) -> None:
    """Raises RequestError if what is read as one split holds a training split and others.

    Args:
      data: the folder of images.
      files: the paths of its images from there.
    """
    kinds: dict[str, set[bool]] = {}
    names: dict[str, set[str]] = {}
    for parent in {os.path.dirname(file) for file in files}:
        parts = parent.split("/")
        for depth, name in enumerate(parts):
            kind = _SPLIT.fullmatch(name)
            if kind:
                above = "/".join(parts[:depth])
                kinds.setdefault(above, set()).add(kind["train"] is not None)
                names.setdefault(above, set()).add(name)
    for above in sorted(above for above, kind in kinds.items() if len(kind) == 2):
        found = sorted(names[above], key=lambda name: (not _SPLIT.fullmatch(name)["train"], name))
        raise RequestError(
            f"Splits must lie directly below the data. Received: {shown(str(data))}, in whose "
            f"folder {shown(above)} lie {listed(found)}. Give {shown(str(data / above))} as the "
            f"data, or a path such as data.train_split = '{shown(above)}/{found[0]}'. {_ALL}"
        )


def _check_inside(
    folder: pathlib.Path, data: pathlib.Path, is_below: bool, follow_links: bool
) -> None:
    inside = within(os.path.realpath(folder), os.path.realpath(data))
    if not is_below or not (inside or follow_links):
        raise RequestError(
            f"The folder of a split must lie in the data. Received: {shown(str(folder))}, which "
            f"leads to {shown(os.path.realpath(folder))}. Give that folder as the data"
            + (", or bind data.follow_links = True." if is_below else ".")
        )


def _not_there(data: pathlib.Path, split: str, beside: Sequence[str]) -> str:
    found = f"the folders {listed(beside)}" if beside else "no folders"
    by_name = {name.casefold(): name for name in beside}
    close = difflib.get_close_matches(os.path.basename(split).casefold(), by_name, n=1)
    hint = f" Did you mean {by_name[close[0]]!r}?" if close else ""
    if any(map(is_split, beside)):
        advice = "Set data.train_split, and data.eval_split for images that were not trained on, "
        advice += "to folders that are there."
    else:
        advice = f"Without folders of splits, all images are the split {WHOLE!r}. Evaluation needs "
        advice += "images that were not trained on, in a folder of their own, such as test."
    return (
        f"A split must be a folder of its name below the data. Received: {shown(split)!r} of "
        f"folder:{shown(str(data))}, where there are {found}.{hint} {advice}"
        + (f" {_ALL}" if split == WHOLE else "")
    )
