"""Reads a part of the folder's files in a process of its own, which holds one picture at a time.

A finished part is two files: the pictures as they will be stored, each with its thumbnail behind
it, and a description, which is written last. A part that is there is not read again.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Sequence

from simclr_tf.errors import RequestError
from simclr_tf.prepare import pictures, reasons, signature
from simclr_tf.prepare.scan import SourceFile

# A kill costs each process the work on so many files.
FILES_IN_A_PART = 64
# Errors of one file. Any other, such as a lost disk, would make every later file unreadable too.
_OF_A_FILE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file that was tried.

    Attributes:
      path: below the folder.
      reason: why it is not read; empty if it is.
      note: what a person should know of it.
      width: of the file's picture, upright, in pixels.
      height: the same.
      digest: of the file's content.
      hashes: its perceptual hashes.
      part: the number of its part.
      offset: where its bytes begin in the part.
      length: how many there are, before the thumbnail.
    """

    path: str
    reason: str = ""
    note: str = ""
    width: int = 0
    height: int = 0
    digest: str = ""
    hashes: Sequence[int] = ()
    part: int = 0
    offset: int = 0
    length: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
    """Files to read, and how.

    Attributes:
      number: of the part.
      folder: the work folder, which holds the parts.
      root: the folder of images.
      files: the files.
      size: see `pictures.read`.
      bit_depth: see `pictures.read`.
    """

    number: int
    folder: str
    root: str
    files: Sequence[SourceFile]
    size: int
    bit_depth: int

    @property
    def data_path(self) -> str:
        return os.path.join(self.folder, f"part-{self.number:06d}.data")

    @property
    def _description_path(self) -> str:
        return os.path.join(self.folder, f"part-{self.number:06d}.json")

    def finished(self) -> list[Picture] | None:
        """Returns its pictures if it was read before, and the files are still the same."""
        try:
            with open(self._description_path, encoding="ascii") as file:
                states, found = json.load(file)
        except (FileNotFoundError, ValueError):  # none, or one that a power cut left empty
            return None
        if states != [list(file.state) for file in self.files]:
            return None
        return [Picture(**picture) for picture in found]

    def read(self) -> list[Picture]:
        """Reads the files, writes the part, and returns its pictures."""
        found = []
        partial = f"{self.data_path}.partial-{os.getpid()}"
        with open(partial, "wb") as data:
            for file in self.files:
                picture, stored = self._picture(file)
                if stored:
                    picture = dataclasses.replace(picture, part=self.number, offset=data.tell())
                    data.write(stored)
                found.append(picture)
        os.replace(partial, self.data_path)
        described = [file.state for file in self.files], [dataclasses.asdict(p) for p in found]
        write_text(self._description_path, json.dumps(described))
        return found

    def _picture(self, file: SourceFile) -> tuple[Picture, bytes]:
        """Returns a picture, and what is stored of it; nothing if it is not read."""
        unread = reasons.unread(file.path)
        if unread:
            return Picture(file.path, unread), b""
        try:
            with open(os.path.join(self.root, file.path), "rb") as opened:
                content = opened.read()
        except OSError as error:
            if error.errno not in _OF_A_FILE:
                raise RequestError(
                    "The disk of the images must stay readable. Received: "
                    f"{os.path.join(self.root, file.path)}, {error.strerror}. Bring it back and "
                    "give the same command again, which resumes."
                ) from error
            return Picture(file.path, f"cannot be read ({error.strerror})"), b""
        try:
            image, shape, note = pictures.read(content, file.path, self.size, self.bit_depth)
        except pictures.Unreadable as error:
            return Picture(file.path, str(error)), b""
        stored = pictures.encoded(image)
        picture = Picture(
            path=file.path,
            note=note,
            width=shape[0],
            height=shape[1],
            digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
            hashes=signature.hashes_of(image),
            length=len(stored),
        )
        return picture, stored + signature.thumbnail_of(image)


def read(part: Part) -> tuple[list[Picture], int]:
    """Reads a part in another process, and returns its pictures and its number."""
    return part.read(), part.number


def write_text(path: str, text: str) -> None:
    """Writes a file at once: a reader sees all of it or none."""
    partial = f"{path}.partial-{os.getpid()}"
    with open(partial, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(partial, path)
