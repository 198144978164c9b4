"""Some images of a source, as a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from simclr_tf.data.source import ArraySource, RecordFile, RecordSource, Source


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
