"""`folder:PATH`: every image file below a folder, however deep."""

from __future__ import annotations

import pathlib

import numpy as np

from simclr_tf.data.source import FileSource
from simclr_tf.errors import RequestError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})


def open_folder(path: str, split: str) -> FileSource:
    """The images below `path`, or below `path/split` where that folder exists.

    Where every image lies in a subfolder and there are at least two of these, the name of the
    folder that directly holds an image is its class. Otherwise there are no labels.

    Raises:
      RequestError: there is no such folder, or no image in it.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise RequestError(
            f"The folder of images must exist. Received: folder:{path}. Give it as --data_dir or "
            "as data.source = 'folder:PATH'."
        )
    if (root / split).is_dir():
        root = root / split
    files = sorted(
        p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and not _hidden(p, root)
    )
    if not files:
        raise RequestError(
            f"No image found below {root}. Files must end in {', '.join(sorted(EXTENSIONS))}."
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


def _hidden(path: pathlib.Path, root: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
