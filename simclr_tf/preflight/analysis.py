"""What a program that was compiled for a TPU is made of, read from its text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Work of a training step that the compiler gives no estimate of.
_NOT_ESTIMATED = ("select-and-scatter", "sort", "while", "custom-call", *_COLLECTIVES)


@dataclasses.dataclass(frozen=True)
class Fusion:
    """An instruction with the compiler's estimate, and the TensorFlow op that it comes from."""

    cycles: int
    name: str
    op: str
    result: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind: how many, and the bytes of their results."""

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Attributes:
    cycles: the sum of the compiler's estimates.
    fusions: instructions with an estimate, the longest first.
    collectives: one entry a kind.
    not_estimated: instructions that take time, and have no estimate, by kind.
    """

    cycles: int
    fusions: list[Fusion]
    collectives: list[Collective]
    not_estimated: dict[str, int]


def analyse(hlo: str) -> Analysis:
    """Reads the text of a compiled program."""
    fusions, collectives, others = [], collections.defaultdict(list), collections.Counter()
    for line in hlo.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(", line)
        if not match:
            continue
        name, result, kind = match[1], match[2], match[3].removesuffix("-start")
        estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
        if estimate:
            op = re.search(r'op_name="([^"]*)"', line)
            fusions.append(Fusion(int(estimate[1]), name, op[1] if op else "", result))
        elif kind in _NOT_ESTIMATED:
            others[kind] += 1
        if kind in _COLLECTIVES:
            collectives[kind].append(_bytes_of(result))
    fusions.sort(key=lambda fusion: -fusion.cycles)
    return Analysis(
        cycles=sum(fusion.cycles for fusion in fusions),
        fusions=fusions,
        collectives=[Collective(k, len(sizes), sum(sizes)) for k, sizes in collectives.items()],
        not_estimated=dict(others),
    )


def _bytes_of(result: str) -> int:
    """Bytes of `f32[2,64]{1,0:T(8,128)}`, or of a tuple of such."""
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims in arrays
    )
