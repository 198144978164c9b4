"""Decides from the pictures alone: which are kept, their splits, labels and records."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence

from simclr_tf.errors import RequestError
from simclr_tf.prepare import duplicates, splits
from simclr_tf.prepare.parts import Picture
from simclr_tf.prepare.scan import Listing, SourceFile

_TRAIN, _TEST = "train", "test"
_SHARD_BYTES = 2**27
# Hosts share the files of a set, and the input pipeline reads 16 at a time.
_SHARDS, _LEAST_RECORDS = 16, 64


@dataclasses.dataclass(frozen=True)
class Record:
    """A picture, and its label; None if the set has no classes."""

    picture: Picture
    label: int | None


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records."""

    name: str
    records: Sequence[Record]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The set that will be written.

    Attributes:
      classes: their names, in the order of the labels; none without labels.
      shards: split -> its files.
      copies: path -> the path that is kept, and the kind of copy.
    """

    classes: list[str]
    shards: dict[str, list[Shard]]
    copies: dict[str, tuple[str, str]]


def plan(
    listing: Listing,
    pictures: Sequence[Picture],
    thumbnail: Callable[[Picture], bytes],
    test_percent: float,
    seed: int,
) -> Plan:
    """Plans a set, in the same way whatever order the pictures were read in.

    Of copies the largest picture is kept, and of equal ones that of the smaller split: a copy of a
    test image is left out of the training split.

    Args:
      listing: the folder's files.
      pictures: those that were tried.
      thumbnail: picture -> its thumbnail.
      test_percent: how many of a hundred pictures go to the test split of a folder without splits.
      seed: of that split, and of the order of records.

    Raises:
      RequestError: no picture can be read.
    """
    file_of = {file.path: file for file in listing.files}

    def preference(picture: Picture) -> tuple:
        in_train = file_of[picture.path].split == _TRAIN
        return -picture.width * picture.height, in_train, os.fsencode(picture.path)

    readable = sorted((p for p in pictures if not p.reason), key=preference)
    if not readable:
        raise RequestError(
            "At least one image must be read. Received: none, for these reasons: "
            + reasons_in_words(pictures)
        )
    found = duplicates.find(
        [p.digest for p in readable], [p.hashes for p in readable], lambda n: thumbnail(readable[n])
    )
    kept = [n for n in range(len(readable)) if n not in found.copies]
    numbers = {n: place for place, n in enumerate(kept)}
    files = [file_of[readable[n].path] for n in kept]
    groups = {place: numbers[found.group_of[n]] for n, place in numbers.items()}
    split_of = _splits(listing, files, groups, test_percent, seed)
    classes = sorted({f.class_name for f in files if f.class_name is not None}, key=os.fsencode)
    label = {name: n for n, name in enumerate(classes)} | {None: -1 if classes else None}
    records = collections.defaultdict(list)
    for place in sorted(range(len(kept)), key=lambda n: splits.rank(seed, files[n].path)):
        record = Record(readable[kept[place]], label[files[place].class_name])
        records[split_of[place]].append(record)
    return Plan(
        classes,
        {split: _shards(split, records[split]) for split in sorted(records)},
        {
            readable[n].path: (readable[copy.kept].path, copy.kind)
            for n, copy in found.copies.items()
        },
    )


def reasons_in_words(pictures: Sequence[Picture]) -> str:
    """Counts the reasons for which pictures are not read, the commonest first."""
    counted = collections.Counter(p.reason for p in pictures if p.reason).most_common()
    more = [f"{len(counted) - 5} more reasons"] if len(counted) > 5 else []
    return ", ".join([f"{count} {reason}" for reason, count in counted[:5]] + more)


def _splits(
    listing: Listing,
    files: Sequence[SourceFile],
    groups: dict[int, int],
    test_percent: float,
    seed: int,
) -> list[str]:
    """Returns the split of each kept file: the folder's, or one that is drawn."""
    if {file.split for file in files} > {_TRAIN}:
        return [file.split for file in files]
    drawn = splits.test_split(
        [file.path for file in files],
        [file.class_name for file in files],
        groups,
        test_percent,
        seed,
    )
    return [_TEST if n in drawn else _TRAIN for n in range(len(files))]


def _shards(split: str, records: Sequence[Record]) -> list[Shard]:
    """Distributes the records of a split, in their order, over files of about equal length."""
    by_bytes = -(-sum(record.picture.length for record in records) // _SHARD_BYTES)
    count = max(1, by_bytes, min(_SHARDS, len(records) // _LEAST_RECORDS))
    names = [f"{split}-{n:05d}-of-{count:05d}.tfrecord" for n in range(count)]
    return [Shard(name, records[n::count]) for n, name in enumerate(names)]
