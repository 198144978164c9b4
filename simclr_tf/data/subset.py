"""Draws a part of a source as a source: a sample, a share of each class, or of its labels.

All are the same for the same seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError


def sample(source: Source, count: int, seed: int) -> Source:
    """Draws at most `count` images, the same ones for the same seed.

    Images that are reached by number are drawn at random. Record files are read in order, so the
    sample takes the first records of every file, in proportion to its length.

    Args:
      source: the source of the images; returned unchanged if it has no more than `count`.
      count: at least 1.
      seed: seed of the draw.
    """
    if source.num_examples <= count:
        return source
    return source.select(source.sample_positions(count, seed))


def class_balanced(source: Source, share: float, seed: int) -> Source:
    """Draws `share` of each class's images (rounded, at least one) by `seed` alone.

    Args:
      source: labelled images in files or in memory.
      share: share of the labels, above 0 and at most 1.
      seed: seed of the draw; a smaller share is part of a larger one.

    Raises:
      RequestError: the share is out of range, or the source's labels lie in its records.
    """
    _check_share(source, share)
    if share == 1.0:
        return source
    chosen = np.sort(np.concatenate(list(_drawn(source.labels, share, seed))))
    name = f"{source.name} ({share:.4g} of each class, seed {seed})"
    return dataclasses.replace(source.select(chosen), name=name)


def labels_of_share(source: Source, share: float, seed: int) -> Source:
    """Keeps the labels of the images that `class_balanced` draws, and all images.

    Args:
      source: labelled images in files or in memory.
      share: share of the labels, above 0 and at most 1.
      seed: seed of the draw.

    Raises:
      RequestError: as for `class_balanced`.
    """
    _check_share(source, share)
    if share == 1.0:
        return source
    labels = np.full_like(source.labels, -1)
    for drawn in _drawn(source.labels, share, seed):
        labels[drawn] = source.labels[drawn]
    name = f"{source.name} (labels of {share:.4g} of each class, seed {seed})"
    return dataclasses.replace(source, name=name, labels=labels)


def _check_share(source: Source, share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise RequestError(f"The share of labels must be in (0, 1]. Received: {share}.")
    if share < 1.0 and source.labels is None:
        raise RequestError(
            f"A share of the labels can be drawn from files or small data sets. Received: {share} "
            f"of {source.name}, which is read from records in order. Use a data set that holds the "
            "share, such as tfds:imagenet2012_subset/1pct, with the share 1.0."
        )


def _drawn(labels: np.ndarray, share: float, seed: int) -> Iterator[np.ndarray]:
    for label in np.unique(labels[labels >= 0]):
        of_class = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(of_class)
        yield order[: max(1, round(share * len(of_class)))]
