"""Labels of records: whole numbers, counted before a run."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np
from absl import logging

# Larger numbers are no classes, but dates or keys.
MAX_CLASSES = 2**20
# Numbers that a message names.
_SHOWN = 10


def count_labels(batches: Iterable[np.ndarray]) -> np.ndarray | None:
    """Counts labels, int64 [...] each: returns int64 [C], C the largest label + 1.

    Returns None if they cannot be classes: one is below -1, which stands for unknown, or too large.
    """
    found: collections.Counter[int] = collections.Counter()
    for batch in batches:
        labels, counts = np.unique(batch, return_counts=True)
        if labels[0] < -1 or labels[-1] >= MAX_CLASSES:
            return None
        found.update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
    return np.array([found[label] for label in range(max(found, default=-1) + 1)], np.int64)


def numbered_classes(counts: np.ndarray, name: str) -> list[str] | None:
    """Returns labels 0 to the largest as text, since there are no names; None if it is 0.

    Labels that no image has are warned of: they may be one-based, or a damaged record.

    Args:
      counts: images of each label, int64 [C].
      name: the source's name.
    """
    if len(counts) < 2:
        return None
    absent = np.flatnonzero(counts == 0)
    if len(absent):
        shown = ", ".join(map(str, absent[:_SHOWN]))
        more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
        logging.warning(
            "%s has labels up to %d, and no image with label %s%s. Each counts as a class.",
            name,
            len(counts) - 1,
            shown,
            more,
        )
    return [str(label) for label in range(len(counts))]
