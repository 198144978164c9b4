"""Lists every file below a folder, with its split, its class, or why it is left out."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator

from simclr_tf.data.folder_classes import classes_of
from simclr_tf.data.folder_scan import MAX_FILE_BYTES, is_system, within
from simclr_tf.data.folder_splits import is_split, refuse_deeper_splits
from simclr_tf.errors import RequestError
from simclr_tf.names import listed, shown
from simclr_tf.prepare import reasons

_OUTSIDE = "outside the folders of the splits"
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of the folder.

    Attributes:
      path: below the folder.
      left_out: why it is not read; empty if it is read.
      size: bytes, of what a link leads to.
      mtime_ns: when it was changed.
      split: the split whose folder holds it, if the folder has splits.
      class_name: the class whose folder holds it, if the folder has classes.
    """

    path: str
    left_out: str = ""
    size: int = 0
    mtime_ns: int = 0
    split: str | None = None
    class_name: str | None = None

    @property
    def state(self) -> tuple[str, int, int]:
        """Path, length and time, which change when the file does."""
        return self.path, self.size, self.mtime_ns


@dataclasses.dataclass(frozen=True)
class Listing:
    """All files of a folder, in the order of their paths, and what was assumed of its layout."""

    files: list[SourceFile]
    notes: list[str]


def scan(root: str, follow_links: bool) -> Listing:
    """Lists a folder.

    Folders named train, test or val below it are its splits, and classes are found in each, all by
    the rules of `folder:`.

    Args:
      root: the folder.
      follow_links: whether links that lead out of it are followed.

    Raises:
      RequestError: it is no folder, or no file in it can be read, or it has no split to train on.
    """
    found = files_below(root, follow_links)
    split_of = _split_folders(root, [file for file in found if not file.left_out])
    files, notes = _with_splits(found, split_of)
    files, told = _with_classes(files)
    return Listing(files, [*notes, *told])


def files_below(root: str, follow_links: bool) -> list[SourceFile]:
    """Lists all files as `scan` does, whatever their layout means.

    Raises:
      RequestError: it is no folder, or no file in it can be read.
    """
    if not os.path.isdir(root):
        raise RequestError(
            f"The folder of images must exist. Received: folder:{shown(root)}. Give it as "
            "folder:PATH."
        )
    found = list(_walk(root, os.path.realpath(root), follow_links))
    if all(file.left_out for file in found):
        why = collections.Counter(file.left_out for file in found)
        told = ", ".join(f"{count} {reason}" for reason, count in why.items()) or "none at all"
        raise RequestError(
            f"The folder must hold files to read. Received: {shown(root)}, with {told}."
        )
    return found


def _walk(root: str, real_root: str, follow_links: bool) -> Iterator[SourceFile]:
    """Yields all files in the order of their paths, those left out with the reason."""
    pending = [("", "", frozenset({real_root}))]  # path, why it is left out, folders it lies in
    while pending:
        folder, left_out, above = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                entries = sorted(found, key=lambda e: os.fsencode(e.name), reverse=True)
        except OSError as error:
            yield SourceFile(folder, f"folder that cannot be read ({error.strerror})")
            continue
        files = []
        for entry in entries:
            path = os.path.join(folder, entry.name)
            why = left_out or _hidden(entry.name)
            real = os.path.realpath(entry.path) if entry.is_symlink() else ""
            if real and not why:
                why = _unfit_link(real, real_root, above, follow_links)
            if entry.is_dir() and not (real and why):
                inside = above | {real or os.path.realpath(entry.path)}
                pending.append((path, why, inside))
            else:
                files.append(_file(entry, path, why))
        yield from reversed(files)


def _hidden(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    return "of a system or program" if is_system(name) else ""


def _unfit_link(real: str, real_root: str, above: frozenset[str], follow_links: bool) -> str:
    if not os.path.exists(real):
        return "link that leads nowhere"
    if real in above:
        return "link to a folder that holds it"
    return "" if within(real, real_root) or follow_links else "link that leads out of the folder"


def _file(entry: os.DirEntry, path: str, why: str) -> SourceFile:
    if why:
        return SourceFile(path, why)
    try:
        state = entry.stat()
        if not stat.S_ISREG(state.st_mode):
            why = "no plain file"
        elif state.st_size > MAX_FILE_BYTES:
            why = f"of more than {MAX_FILE_BYTES >> 20} MiB"
        elif not (reasons.names_an_image(path) or _begins_as_image(entry.path)):
            why = f"no image ({os.path.splitext(path)[1].lower() or 'no extension'})"
    except OSError as error:
        return SourceFile(path, f"cannot be read ({error.strerror})")
    return SourceFile(path, why, state.st_size, state.st_mtime_ns)


def _begins_as_image(path: str) -> bool:
    with open(path, "rb") as file:
        return reasons.begins_as_image(file.read(reasons.BEGINNING))


def _split_folders(root: str, files: list[SourceFile]) -> dict[str, str]:
    """Returns folder -> split: train, test or val; empty if the folder has no splits.

    Raises:
      RequestError: there are splits, but none to train on, or they lie deeper.
    """
    tops = sorted({file.path.split(os.sep)[0] for file in files if os.sep in file.path})
    found = {top: _split_of(top) for top in tops if is_split(top)}
    if not found:
        refuse_deeper_splits(pathlib.Path(root), [file.path for file in files])
    elif "train" not in found.values():
        raise RequestError(
            f"A folder with splits must have one to train on. Received: folder:{shown(root)}, with "
            f"{listed(found)} and no train. Rename one, or give a folder as folder:PATH/NAME."
        )
    return found


def _split_of(folder: str) -> str:
    """Returns the split that a folder is: Train, training and train2017 are train."""
    return next((name for name in ("train", "test") if folder.lower().startswith(name)), "val")


def _with_splits(
    files: list[SourceFile], split_of: dict[str, str]
) -> tuple[list[SourceFile], list[str]]:
    """Returns the files with their splits, and without those outside, which a note names."""

    def placed(file: SourceFile) -> SourceFile:
        split = split_of.get(file.path.split(os.sep)[0])
        if split is None:
            return dataclasses.replace(file, left_out=_OUTSIDE)
        return dataclasses.replace(file, split=split)

    if not split_of:
        return files, []
    files = [file if file.left_out else placed(file) for file in files]
    outside = {file.path.split(os.sep)[0] for file in files if file.left_out == _OUTSIDE}
    if not outside:
        return files, []
    return files, [f"read only in {listed(split_of)}, not {listed(sorted(outside), _SHOWN)} beside"]


def _with_classes(files: list[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """Returns the files with their classes, by the rule of `folder:`, and what was assumed."""
    inside = collections.defaultdict(dict)
    for file in files:
        if not file.left_out:
            below = file.path.partition(os.sep)[2] if file.split else file.path
            inside[file.split][below] = file
    notes: dict[str, None] = {}
    class_of, stray = {}, set()
    for by_path in inside.values():
        found = classes_of(sorted(by_path, key=lambda path: path.split(os.sep)))
        notes |= dict.fromkeys(found.notes)
        stray |= {by_path[path].path for path in found.stray}
        if found.names:
            labels = zip(found.files, found.labels, strict=True)
            class_of |= {by_path[path].path: found.names[n] for path, n in labels}

    def labelled(file: SourceFile) -> SourceFile:
        if file.path in stray:
            return dataclasses.replace(file, left_out="beside the folders of classes")
        return dataclasses.replace(file, class_name=class_of.get(file.path))

    return [labelled(file) for file in files], list(notes)
