"""Prepares a set of a folder of images, and resumes where it was stopped."""

from __future__ import annotations

import collections
import dataclasses
import errno
import hashlib
import json
import os
import sys

from tqdm import tqdm

from simclr_tf.errors import RequestError
from simclr_tf.prepare import manifest, processes
from simclr_tf.prepare import parts as parts_module
from simclr_tf.prepare.folder import SetFolder
from simclr_tf.prepare.parts import FILES_IN_A_PART, Part, Picture
from simclr_tf.prepare.plan import Plan, plan
from simclr_tf.prepare.scan import Listing, scan
from simclr_tf.prepare.signature import THUMBNAIL_BYTES
from simclr_tf.tensorflow_start import import_tensorflow

# Written into the set: another number refuses to resume what older code began.
_FORMAT = 1
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@dataclasses.dataclass(frozen=True)
class Request:
    """What a set is made of, and how.

    Attributes:
      root: the folder of images.
      data_dir: the folder of the set.
      size: upper bound of the shorter side in pixels.
      test_percent: share of the test split that is made of a folder without splits.
      seed: of that split, and of the order of records.
      bit_depth: the bits in use of gray levels that are stored in 16 or more.
      follow_links: whether links that lead out of the folder are followed.
      processes: how many read images; the set does not depend on it.
    """

    root: str
    data_dir: str
    size: int = 512
    test_percent: float = 10.0
    seed: int = 0
    bit_depth: int = 16
    follow_links: bool = False
    processes: int = 1

    def check(self) -> None:
        """Raises RequestError for a value that makes no set."""
        _require(self.size >= 8, "--size must be at least 8 pixels", self.size)
        _require(
            0 <= self.test_percent < 100,
            "--test_percent must be from 0 to less than 100",
            self.test_percent,
        )
        _require(8 <= self.bit_depth <= 16, "--bit_depth must be from 8 to 16", self.bit_depth)
        source, target = os.path.realpath(self.root), os.path.realpath(self.data_dir)
        inside = os.path.commonpath([source, target]) in (source, target)
        _require(
            not inside, "--data_dir must lie beside the images, neither in nor above them", target
        )

    def settings(self) -> dict:
        """Returns what decides the contents of the set, as JSON holds it."""
        settings = dataclasses.asdict(self) | {"root": os.path.realpath(self.root)}
        del settings["data_dir"], settings["processes"]
        return {"format": _FORMAT, **settings}


def prepare(request: Request) -> dict:
    """Prepares a set, or what is left of it, and returns its description.

    Raises:
      RequestError: the folder has no image, data_dir holds something else, or cannot be written.
    """
    request.check()
    folder = SetFolder(request.data_dir, request.settings())
    described = folder.description()
    print(f"listing {request.root}", file=sys.stderr)
    listing = scan(request.root, request.follow_links)
    states = _digest([file.state for file in listing.files])
    if described:
        if described["files"] != states:
            raise RequestError(
                f"A finished set is not changed. Received: {request.root}, whose files are others "
                f"than when {request.data_dir} was prepared. Give another --data_dir."
            )
        folder.drop_work()
        return described
    try:
        with folder.held():
            return _prepared(request, folder, listing, states)
    except OSError as error:
        if error.errno not in _OF_WRITING:
            raise
        raise _cannot_write(request, error.strerror) from error


def _prepared(request: Request, folder: SetFolder, listing: Listing, states: str) -> dict:
    parts = _parts(request, folder, listing)
    pictures = _read(parts, request.processes)
    made = plan(listing, pictures, _Contents(parts).thumbnail, request.test_percent, request.seed)
    _write_shards(made, folder, _Contents(parts), request)
    found = manifest.rows(listing, pictures, made)
    manifest.write(request.data_dir, found, made)
    notes = [f"{p.path} {p.note}" for p in pictures if p.note]
    description = {
        "classes": made.classes,
        "splits": {split: _counts_of(made, split) for split in made.shards},
        "outcomes": manifest.counts(found),
        "left_out": _left_out(found),
        "notes": listing.notes + notes[:10],
        "files": states,
    }
    folder.finish(description)
    return description


def _parts(request: Request, folder: SetFolder, listing: Listing) -> list[Part]:
    files = [file for file in listing.files if not file.left_out]
    return [
        Part(
            number=n,
            folder=folder.work,
            root=request.root,
            files=files[first : first + FILES_IN_A_PART],
            size=request.size,
            bit_depth=request.bit_depth,
        )
        for n, first in enumerate(range(0, len(files), FILES_IN_A_PART))
    ]


def _read(parts: list[Part], count: int) -> list[Picture]:
    """Reads the parts that are not finished, with a line that shows the progress."""
    found = {part.number: part.finished() for part in parts}
    left = [part for part in parts if found[part.number] is None]
    total = sum(len(part.files) for part in parts)
    done = total - sum(len(part.files) for part in left)
    with progress("reading", total, done) as bar:
        for pictures, number in processes.each(parts_module.read, left, count):
            found[number] = pictures
            bar.update(len(pictures))
    return [picture for part in parts for picture in found[part.number]]


def progress(what: str, total: int, done: int = 0) -> tqdm:
    """Returns a line on standard error with images, images/s and the time left."""
    often = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        desc=what, total=total, initial=done, unit=" images", mininterval=often, dynamic_ncols=True
    )


class _Contents:
    """The bytes of pictures, from the files of the parts."""

    def __init__(self, parts: list[Part]):
        self._paths = [part.data_path for part in parts]

    def __call__(self, picture: Picture) -> bytes:
        return self._at(picture, picture.offset, picture.length)

    def thumbnail(self, picture: Picture) -> bytes:
        return self._at(picture, picture.offset + picture.length, THUMBNAIL_BYTES)

    def _at(self, picture: Picture, offset: int, length: int) -> bytes:
        with open(self._paths[picture.part], "rb") as file:
            file.seek(offset)
            return file.read(length)


def _write_shards(made: Plan, folder: SetFolder, contents: _Contents, request: Request) -> None:
    import_tensorflow()  # not before: reading does without
    import tensorflow as tf

    from simclr_tf.prepare import shards

    planned = [shard for of_split in made.shards.values() for shard in of_split]
    folder.keep_shards_of(_digest([dataclasses.asdict(shard) for shard in planned]))
    with progress("writing", sum(len(shard.records) for shard in planned)) as bar:
        for shard in planned:
            try:
                shards.write(shard, request.data_dir, contents)
            except tf.errors.OpError as error:
                raise _cannot_write(request, error.message) from error
            bar.update(len(shard.records))


def _counts_of(made: Plan, split: str) -> dict:
    shards = made.shards[split]
    labels = collections.Counter(record.label for shard in shards for record in shard.records)
    return {
        "images": labels.total(),
        "shards": len(shards),
        "of_class": [labels[n] for n in range(len(made.classes))],
    }


def _left_out(found: list[dict]) -> dict[str, int]:
    rows = (row for row in found if row["outcome"] == manifest.LEFT_OUT)
    return dict(sorted(collections.Counter(row["reason"] for row in rows).items()))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _require(holds: bool, message: str, received: object) -> None:
    if not holds:
        raise RequestError(f"{message}. Received: {received}.")


def _cannot_write(request: Request, said: str) -> RequestError:
    return RequestError(
        f"{request.data_dir} must have room for the set, and while it is made as much again. "
        f"Received: {said}. Make room and give the same command again, which resumes."
    )
