"""Lists the images below a folder, and counts by kind whatever is left out.

The folder may come from other people: links that lead out of the data are left out, unless asked
for, and so is anything but plain files, such as a pipe that would never end.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import re
import stat
import time
from collections.abc import Sequence

from absl import logging

from simclr_tf.names import shown

# Largest image file; the largest image that is decoded takes less, even at 16 bits.
MAX_FILE_BYTES = 2**29

# Folders and files of systems and programs, beside the hidden ones: thumbnails, trash, caches.
_SYSTEM = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "@recycle",
        "@tmp",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycled",
        "recycler",
        "network trash folder",
        "temporary items",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
_OUTSIDE = "links that lead outside (followed with data.follow_links = True)"

_ENDING = re.compile(r"\.[a-z0-9]{1,8}")
# Until the first line of progress, and between lines.
_FIRST_SECONDS, _SECONDS = 1.0, 5.0


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images below a folder.

    Attributes:
      files: their paths from the folder, in the order of the paths' parts.
      left_out: kind -> number of files, folders and links that are left out.
      followed: the number of links that lead to images or folders read here.
      outside: links that lead out of the data and are left out, and where they lead.
    """

    files: Sequence[str]
    left_out: dict[str, int]
    followed: int
    outside: Sequence[tuple[str, str]]


def is_system(name: str) -> bool:
    """Returns whether systems or programs leave files or folders of this name among photos."""
    return name.startswith(".") or name.lower() in _SYSTEM


def list_images(root: str, data: str, follow_links: bool = False) -> Listing:
    """Lists the images below `root`, to any depth.

    Links to files and folders are followed within the data. No folder is read twice, so links in a
    circle end, and a folder is read where it lies rather than where a link leads to it.

    Args:
      root: the folder to list.
      data: the folder beyond which links are not followed.
      follow_links: whether to follow links that lead outside.
    """
    scan = _Scan(root, os.path.realpath(data), follow_links)
    scan.folder("", os.path.realpath(root))
    while scan.links:  # those of linked folders come after all that were known before
        links, scan.links = sorted(scan.links, key=_parts), []
        for link in links:
            scan.follow(link)
    files = sorted(scan.files, key=_parts)
    return Listing(files, dict(scan.left_out), scan.followed, sorted(scan.outside))


def within(path: str, data: str) -> bool:
    """Returns whether `path` lies in the folder `data`; both are free of links."""
    return path == data or path.startswith(os.path.join(data, ""))


def _parts(path: str) -> list[str]:
    return path.split("/")


class _Scan:
    """The state of listing a folder; paths are from `root`, and end in a slash for folders."""

    def __init__(self, root: str, data: str, follow_links: bool):
        self.root = root
        self.data = data
        self.follow_links = follow_links
        self.files: list[str] = []
        self.left_out: collections.Counter[str] = collections.Counter()
        self.followed = 0
        self.outside: list[tuple[str, str]] = []
        self.links: list[str] = []  # to folders, to be followed
        self._read: set[str] = set()  # folders, by paths free of links
        self._next_line = time.monotonic() + _FIRST_SECONDS

    def folder(self, path: str, resolved: str) -> None:
        """Lists a folder and those in it; sets links to folders aside."""
        waiting = [(path, resolved)]
        while waiting:
            path, resolved = waiting.pop()
            if resolved in self._read:
                self.left_out["folders read already"] += 1
                continue
            self._read.add(resolved)
            try:
                with os.scandir(os.path.join(self.root, path)) as entries:
                    for entry in entries:
                        if self._entry(entry, path + entry.name):
                            inner = os.path.join(resolved, entry.name)
                            waiting.append((f"{path}{entry.name}/", inner))
                        self._tell()
            except OSError:
                self.left_out["folders that cannot be read"] += 1

    def follow(self, link: str) -> None:
        """Lists the folder that a link leads to, unless it was read or holds the link."""
        path = os.path.join(self.root, link)
        target = os.path.realpath(path)
        if within(os.path.realpath(os.path.dirname(path)), target):
            self.left_out["links in a circle"] += 1
        elif target in self._read:
            self.left_out["links to what is read already"] += 1
        else:
            self.followed += 1
            self.folder(f"{link}/", target)

    def _entry(self, entry: os.DirEntry, path: str) -> bool:
        """Takes or counts what is no folder; returns whether it is a folder to be listed."""
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_system(entry.name):
            self.left_out[_system_kind(entry.name, is_folder)] += 1
        elif entry.is_symlink():
            self._link(path)
        elif not is_folder:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                self._file(path, entry.stat(follow_symlinks=False))
        return is_folder and not is_system(entry.name)

    def _link(self, path: str) -> None:
        location = os.path.join(self.root, path)
        try:
            state = os.stat(location)
        except OSError:
            self.left_out["links that lead nowhere"] += 1
            return
        is_folder = stat.S_ISDIR(state.st_mode)
        if not is_folder and not _is_image(path):
            self.left_out[_kind(path)] += 1
            return
        target = os.path.realpath(location)
        if not self.follow_links and not within(target, self.data):
            self.left_out[_OUTSIDE] += 1
            self.outside.append((path, target))
        elif is_folder:
            self.links.append(path)
        else:
            self.followed += self._file(path, state)

    def _file(self, path: str, state: os.stat_result) -> bool:
        """Takes or counts a file; returns whether it is an image."""
        if not stat.S_ISREG(state.st_mode):
            self.left_out["special files (pipes, sockets, devices)"] += 1
        elif not _is_image(path):
            self.left_out[_kind(path)] += 1
        elif state.st_size > MAX_FILE_BYTES:
            self.left_out[f"files of more than {MAX_FILE_BYTES >> 20} MiB"] += 1
        else:
            self.files.append(path)
            return True
        return False

    def _tell(self) -> None:
        """Prints a line every few seconds."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS
            logging.info("listing %s: %s images so far", shown(self.root), f"{len(self.files):,}")


@functools.cache
def extensions() -> frozenset[str]:
    """Returns the endings of the images that are read."""
    from simclr_tf.data import webp  # needs TensorFlow, which listing a folder does not

    known = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif"}
    return frozenset(known | ({".webp"} if webp.READABLE else set()))


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in extensions()


def _kind(path: str) -> str:
    """Returns a file's kind by its ending."""
    ending = os.path.splitext(path)[1].lower()
    return ending if _ENDING.fullmatch(ending) else "other files"


def _system_kind(name: str, is_folder: bool) -> str:
    if not name.startswith("."):
        return f"folders named {name}" if is_folder else "system files"
    return "hidden folders" if is_folder else "hidden files"
