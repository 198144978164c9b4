"""Divides pictures into a training and a test split, by class, and orders them for the shards."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Mapping, Sequence


def test_split(
    paths: Sequence[str],
    classes: Sequence[str | None],
    group_of: Mapping[int, int],
    percent: float,
    seed: int,
) -> set[int]:
    """Draws the pictures of the test split: of each class the same share, whole groups.

    A class with two groups or more has at least one picture in both splits.

    Args:
      paths: of the N pictures.
      classes: their classes.
      group_of: picture -> the first of its group, which counts as one of that picture's class.
      percent: how many of a hundred pictures are drawn.
      seed: another seed draws others.
    """
    members = collections.defaultdict(list)
    for n in range(len(paths)):
        members[group_of[n]].append(n)
    strata = collections.defaultdict(list)
    for first in members:
        strata[classes[first]].append(first)
    drawn: set[int] = set()
    for firsts in strata.values():
        firsts.sort(key=lambda n: rank(seed, paths[n]))
        count = sum(len(members[first]) for first in firsts)
        wanted = max(1, round(count * percent / 100)) if percent else 0
        taken: list[int] = []
        for first in firsts[:-1]:
            if len(taken) >= wanted:
                break
            taken += members[first]
        drawn.update(taken)
    return drawn


def rank(seed: int, path: str) -> bytes:
    """Returns a key that sorts paths randomly, independent of other paths."""
    return hashlib.sha256(str(seed).encode() + b" " + os.fsencode(path)).digest()
