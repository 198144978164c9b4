"""Some images of a source, as a source: those at given places, a sample, or a share of each class.

Each is the same for the same seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from simclr_tf.data.source import ArraySource, FileSource, RecordFile, RecordSource, Source
from simclr_tf.errors import RequestError


def sample(source: Source, count: int, seed: int) -> Source:
    """At most `count` images, the same ones for the same seed.

    Images in memory and in files of their own are drawn at random. Of record files, which are read
    in order, the first records of every file are taken, in proportion to its length.

    Args:
      source: where they come from; returned as it is if it has no more than `count`.
      count: at least 1.
      seed: of the draw.
    """
    if source.num_examples <= count:
        return source
    if isinstance(source, RecordSource):
        ends = np.cumsum([file.count for file in source.files])
        shares = np.diff(ends * count // source.num_examples, prepend=0)
        starts = ends - [file.count for file in source.files]
        positions = np.concatenate(
            [start + np.arange(share) for start, share in zip(starts, shares, strict=True)]
        )
    else:
        positions = np.random.default_rng(seed).choice(source.num_examples, count, replace=False)
        positions.sort()
    return select(source, positions)


def select(source: Source, positions: Sequence[int] | np.ndarray) -> Source:
    """The images at these places of the source's order, in the order of `positions`.

    The new source numbers images anew; `name_of` still names the file or record.

    Args:
      source: where they come from.
      positions: from 0 to num_examples - 1.
    """
    positions = np.asarray(positions)
    common = dict(
        name=f"{source.name} ({len(positions)} of {source.num_examples})",
        num_examples=len(positions),
    )
    if isinstance(source, RecordSource):
        return dataclasses.replace(source, files=_runs(source.files, positions), **common)
    labels = None if source.labels is None else source.labels[positions]
    if isinstance(source, ArraySource):
        return dataclasses.replace(source, images=source.images[positions], labels=labels, **common)
    paths = [source.paths[position] for position in positions]
    return dataclasses.replace(source, paths=paths, labels=labels, **common)


def class_balanced(source: Source, share: float, seed: int) -> Source:
    """`share` of each class's images (rounded, at least one), drawn by `seed` alone.

    Args:
      source: labelled, of files or in memory.
      share: of the labels, above 0 and at most 1.
      seed: of the draw; a smaller share is part of a larger one.

    Raises:
      RequestError: the share is impossible, or the source is one whose labels lie in its records.
    """
    if not 0.0 < share <= 1.0:
        raise RequestError(f"The share of labels must be in (0, 1]. Received: {share}.")
    if share == 1.0:
        return source
    if not isinstance(source, (ArraySource, FileSource)):
        raise RequestError(
            f"A share of the labels can be drawn from files or small data sets. Received: {share} "
            f"of {source.name}, which is read from records in order. Use a data set that holds the "
            "share, such as tfds:imagenet2012_subset/1pct, with the share 1.0."
        )
    chosen = np.sort(np.concatenate(list(_drawn(source.labels, share, seed))))
    name = f"{source.name} ({share:.4g} of each class, seed {seed})"
    return dataclasses.replace(select(source, chosen), name=name)


def _runs(files: Sequence[RecordFile], positions: np.ndarray) -> list[RecordFile]:
    """Files of which each is a run of records that follow one another."""
    ends = np.cumsum([file.count for file in files])
    runs: list[RecordFile] = []
    for position in positions:
        number = int(np.searchsorted(ends, position, side="right"))
        file = files[number]
        record = file.skip + int(position - (ends[number] - file.count))
        last = runs[-1] if runs else None
        if last and last.path == file.path and last.skip + last.count == record:
            runs[-1] = dataclasses.replace(last, count=last.count + 1)
        else:
            runs.append(RecordFile(path=file.path, skip=record, count=1))
    return runs


def _drawn(labels: np.ndarray, share: float, seed: int) -> Iterator[np.ndarray]:
    for label in np.unique(labels[labels >= 0]):
        of_class = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(of_class)
        yield order[: max(1, round(share * len(of_class)))]
