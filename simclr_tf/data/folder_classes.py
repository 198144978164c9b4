"""Tells the classes of images from the folders that hold them.

The class of an image is the first folder of its path, as in `cat/indoor/1.jpg`. A folder that holds
all images, such as `images/`, and folders of splits tell no classes apart: the next one does.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence, Set

import numpy as np

from simclr_tf.data.folder_splits import is_split
from simclr_tf.names import as_text, listed, shown

# Images beside the folders of classes are few if there are at most 3, or a tenth of all, but no
# more than a quarter. If there are more, folders are no classes.
_FEW, _SHARE, _LARGEST_SHARE = 3, 0.1, 0.25
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a folder's images.

    Attributes:
      names: their names, sorted, or None without labels.
      files: the images, by their paths from the folder.
      labels: int64 [N] of `files`, or None.
      stray: images that are left out, as they lie beside the classes.
      notes: what was assumed of a layout that can be read in other ways.
    """

    names: Sequence[str] | None
    files: Sequence[str]
    labels: np.ndarray | None = None
    stray: Sequence[str] = ()
    notes: Sequence[str] = ()


def classes_of(files: Sequence[str], known: Set[str] = frozenset()) -> Classes:
    """Returns the classes of images.

    Args:
      files: their paths from the folder of the split, in order.
      known: classes of another split; a folder that holds all images is a class if it is one there.
    """
    depth, stray, inside = _level_of_classes(files, known)
    by_class = collections.defaultdict(list)
    for file in inside:
        by_class[file.split("/")[depth]].append(file)
    if len(by_class) < 2 and not (by_class and known.issuperset(by_class)):
        return Classes(None, files)
    if not _are_few(stray, files):
        return Classes(None, files, notes=[_no_classes(stray, files, by_class)])
    names = sorted(by_class)
    number = {name: label for label, name in enumerate(names)}
    notes = [
        *_way(inside, depth),
        *([_left_out(stray)] if stray else []),
        *_deeper(by_class, depth),
        *_of_one_image(by_class),
    ]
    labels = [number[file.split("/")[depth]] for file in inside]
    return Classes([*map(as_text, names)], inside, np.array(labels, np.int64), stray, notes)


def _level_of_classes(files: Sequence[str], known: Set[str]) -> tuple[int, list[str], list[str]]:
    """Returns the depth of the folders of classes, the files above them, and those inside."""
    depth, stray, inside = 0, [], list(files)
    while True:
        stray += [file for file in inside if file.count("/") == depth]
        inside = [file for file in inside if file.count("/") > depth]
        folders = {file.split("/")[depth] for file in inside}
        tell_nothing = len(folders) == 1 or all(map(is_split, folders))
        if not folders or folders <= known or not tell_nothing or not _are_few(stray, files):
            return depth, stray, inside
        depth += 1


def _are_few(stray: Sequence[str], files: Sequence[str]) -> bool:
    return len(stray) <= min(max(_FEW, _SHARE * len(files)), _LARGEST_SHARE * len(files))


def _left_out(stray: Sequence[str]) -> str:
    images = "1 image that lies" if len(stray) == 1 else f"{len(stray):,} images that lie"
    return f"left out {images} beside the folders of classes: {listed(stray, _SHOWN)}"


def _no_classes(stray: Sequence[str], files: Sequence[str], by_class: Sequence[str]) -> str:
    return (
        f"no labels, as {len(stray):,} of {len(files):,} images, such as {shown(stray[0])}, lie "
        f"beside the folders {listed(sorted(by_class), _SHOWN)}; to have these as classes, put "
        "every image into one"
    )


def _way(files: Sequence[str], depth: int) -> list[str]:
    ways = sorted({"/".join(file.split("/")[:depth]) for file in files}) if depth else []
    return [f"classes are the folders in {listed(ways, _SHOWN)}"] if ways else []


def _deeper(by_class: dict[str, list[str]], depth: int) -> list[str]:
    """Returns a note on folders below those of the classes."""
    classes_with = collections.defaultdict(set)
    example = {}
    for name, files in by_class.items():
        for file in files:
            for folder in file.split("/")[depth + 1 : -1]:
                classes_with[folder].add(name)
                example.setdefault(folder, file)
    if not classes_with:
        return []
    shared = [folder for folder, classes in classes_with.items() if len(classes) > 1]
    folder = min(shared or classes_with)
    file, classes = example[folder], sorted(classes_with[folder])
    name = file.split("/")[depth]
    note = f"the class is the first folder, so {shown(file)} is of class {shown(name)}"
    return [
        note + (f"; {shown(folder)} lies in several ({listed(classes, _SHOWN)})" if shared else "")
    ]


def _of_one_image(by_class: dict[str, list[str]]) -> list[str]:
    single = [files[0] for _, files in sorted(by_class.items()) if len(files) == 1]
    if not single:
        return []
    classes = "1 class has" if len(single) == 1 else f"{len(single):,} classes have"
    return [f"{classes} one image: {listed(single, _SHOWN)}"]
