"""Finds copies of pictures: equal files, and pictures that look alike."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from simclr_tf.prepare.signature import MAX_BITS, alike

# Hashes that differ by at most MAX_BITS bits agree in one of MAX_BITS + 1 bands.
_BANDS = MAX_BITS + 1
_BAND_BITS = 64 // _BANDS


@dataclasses.dataclass(frozen=True)
class Copy:
    """A picture that is left out, as another one is kept."""

    kept: int
    kind: Literal["exact", "near"]


@dataclasses.dataclass(frozen=True)
class Found:
    """Copies, and groups of kept pictures that must not be told apart by a split.

    Attributes:
      copies: picture -> what is kept in its place.
      group_of: kept picture -> the first picture of its group.
    """

    copies: dict[int, Copy]
    group_of: dict[int, int]


def find(
    digests: Sequence[str], hashes: Sequence[Sequence[int]], thumbnail: Callable[[int], bytes]
) -> Found:
    """Finds the copies among pictures that are ordered by preference: the earliest is kept.

    Each picture is compared only with kept ones that share a band of a hash, so that the time
    grows with the number of pictures, and not with its square.

    Args:
      digests: of the contents of the N files.
      hashes: the hashes of `signature.hashes_of` of each.
      thumbnail: number -> the thumbnail of `signature.thumbnail_of`.
    """
    buckets: dict[tuple[int, int, int], list[int]] = collections.defaultdict(list)
    copies: dict[int, Copy] = {}
    first_with: dict[str, int] = {}
    groups = _Groups()
    for n, digest in enumerate(digests):
        if digest in first_with:
            first = first_with[digest]
            copies[n] = Copy(first, "exact") if first not in copies else copies[first]
            continue
        first_with[digest] = n
        keys = list(_keys(hashes[n]))
        candidates = sorted({m for key in keys for m in buckets[key]})
        close = [m for m in candidates if _are_close(hashes[n], hashes[m])]
        near = [m for m in close if alike(thumbnail(n), thumbnail(m))]
        if near:
            copies[n] = Copy(near[0], "near")
            groups.join(near)
            continue
        groups.join([n])
        for key in keys:
            buckets[key].append(n)
    return Found(copies, groups.first_of())


def _keys(hashes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    for kind, bits in enumerate(hashes):
        for band in range(_BANDS):
            yield kind, band, bits >> (band * _BAND_BITS) & ((1 << _BAND_BITS) - 1)


def _are_close(one: Sequence[int], other: Sequence[int]) -> bool:
    return any((a ^ b).bit_count() <= MAX_BITS for a, b in zip(one, other, strict=True))


class _Groups:
    """Disjoint sets of numbers."""

    def __init__(self):
        self._above: dict[int, int] = {}

    def join(self, numbers: Sequence[int]) -> None:
        tops = sorted({self._top(n) for n in numbers})
        for top in tops:
            self._above[top] = tops[0]

    def first_of(self) -> dict[int, int]:
        return {n: self._top(n) for n in self._above}

    def _top(self, n: int) -> int:
        while (above := self._above.setdefault(n, n)) != n:
            self._above[n] = self._above[above]
            n = above
        return n
