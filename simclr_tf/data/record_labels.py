"""Labels of records: whole numbers, counted before a run."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

# Larger numbers are no classes, but dates or keys.
MAX_CLASSES = 2**20
# Numbers that a note names.
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Classes:
    """What is known of the classes of a source before its images are read.

    Attributes:
      names: in the order of the labels; None if there are no labels.
      counts: images of each class, int64 [C], if known.
      notes: what was assumed, each as a sentence without its stop.
    """

    names: list[str] | None = None
    counts: np.ndarray | None = None
    notes: Sequence[str] = ()


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


def numbered_classes(counts: np.ndarray) -> Classes:
    """Names classes by their labels, 0 to the largest; label 0 alone is no class.

    Args:
      counts: images of each label, int64 [C].
    """
    if len(counts) < 2:
        return Classes()
    absent = np.flatnonzero(counts == 0)
    notes = []
    if len(absent):
        shown = ", ".join(map(str, absent[:_SHOWN]))
        more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
        notes = [
            f"no image has label {shown}{more}, yet each label from 0 to {len(counts) - 1} counts "
            "as a class"
        ]
    return Classes([str(label) for label in range(len(counts))], counts, notes)
