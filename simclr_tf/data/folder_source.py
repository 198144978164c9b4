"""`folder:PATH`: every image file below a folder, however deep.

The folder may come from other people, so only files inside it are read. Links that lead out of it,
and anything but plain files, such as a pipe that would never end, are skipped and counted.
"""

from __future__ import annotations

import collections
import os
import pathlib
import stat
from collections.abc import Iterator

import numpy as np
from absl import logging

from simclr_tf.data import webp
from simclr_tf.data.source import FileSource
from simclr_tf.errors import RequestError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif"} | ({".webp"} if webp.READABLE else set())
)

# Largest image file; the largest image that is decoded takes less, even at 16 bits.
MAX_FILE_BYTES = 2**29


def open_folder(path: str, split: str) -> FileSource:
    """Opens the images below `path`, or below `path/split` if that folder exists.

    If every image lies in a subfolder and there are at least two subfolders, an image's class is
    the name of the folder that directly holds it. Otherwise there are no labels.

    Raises:
      RequestError: the folder does not exist, the split's lies outside, or it holds no image.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise RequestError(
            f"The folder of images must exist. Received: folder:{path}. Give it as --data_dir or "
            "as data.source = 'folder:PATH'."
        )
    data, root = root, root / split if (root / split).is_dir() else root
    if not _within(root, data):
        raise RequestError(
            f"The folder of a split must lie in the data. Received: {root}, a link that leads to "
            f"{root.resolve()}. Give that folder as the data."
        )
    found = sorted(_images(root))
    unfit = {path: _unfit(path, data) for path in found}
    files = [path for path in found if not unfit[path]]
    left_out = [
        f"{n} {why}" for why, n in collections.Counter(filter(None, unfit.values())).items()
    ]
    if left_out:
        logging.warning("left out of %s: %s", root, ", ".join(left_out))
    if not files:
        raise RequestError(
            f"No image found below {root}. Files must end in {', '.join(sorted(EXTENSIONS))}."
            + (f" Left out: {', '.join(left_out)}." if left_out else "")
        )
    parents = [p.parent for p in files]
    names = sorted({p.name for p in parents})
    labelled = root not in parents and len(names) > 1
    return FileSource(
        name=f"folder:{root}",
        num_examples=len(files),
        class_names=names if labelled else None,
        paths=[str(p) for p in files],
        labels=_labels(parents, names) if labelled else None,
    )


def _labels(parents: list[pathlib.Path], names: list[str]) -> np.ndarray:
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[p.name] for p in parents], np.int64)


def _images(root: pathlib.Path) -> Iterator[pathlib.Path]:
    return (p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and not _hidden(p, root))


def _unfit(path: pathlib.Path, data: pathlib.Path) -> str | None:
    """Returns why a file is skipped; None if it is read."""
    state = path.lstat()
    if stat.S_ISLNK(state.st_mode):
        if not _within(path, data):
            return "that link out of the folder"
        state = os.stat(path) if path.exists() else state
    if not stat.S_ISREG(state.st_mode):
        return "that are no files"
    return f"of more than {MAX_FILE_BYTES >> 20} MiB" if state.st_size > MAX_FILE_BYTES else None


def _within(path: pathlib.Path, data: pathlib.Path) -> bool:
    try:
        return path.resolve().is_relative_to(data.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def _hidden(path: pathlib.Path, root: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
