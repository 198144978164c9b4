"""Analyses a program that was compiled for a TPU, by its text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Sequence

from simclr_tf.preflight.hlo import Program, Run

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Work of a training step for which the compiler gives no estimate.
_NOT_ESTIMATED = ("select-and-scatter", "sort", "custom-call", *_COLLECTIVES)


@dataclasses.dataclass(frozen=True)
class Fusion:
    """An instruction with the compiler's estimate, and the TensorFlow op it came from.

    Attributes:
      cycles: estimate for all its runs in a step.
      times: how often a step runs it.
    """

    cycles: int
    times: int
    name: str
    op: str
    result: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind: how many run in a step, and the bytes of their results.

    Both are None if one of them is in a loop that runs an unknown number of times.
    """

    kind: str
    count: int | None
    bytes: int | None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Instructions that a step runs; a loop's body counts as often as the loop runs.

    Attributes:
      cycles: the sum of the compiler's estimates; None if there are loops of unknown count.
      fusions: instructions with an estimate that run a known number of times, the longest first.
      collectives: one entry per kind.
      not_estimated: instructions that take time, and have no estimate, by kind; None if one is in
        a loop of unknown count.
      loops: number of loops.
      unknown_loops: TensorFlow ops of loops that run an unknown number of times, and of
        conditions whose branch is unknown.
    """

    cycles: int | None
    fusions: list[Fusion]
    collectives: list[Collective]
    not_estimated: dict[str, int | None]
    loops: int
    unknown_loops: list[str]


def analyse(hlo: str) -> Analysis:
    """Reads the text of a compiled program."""
    runs = list(Program(hlo).runs())
    fusions = [fusion for run in runs if (fusion := _fusion(run))]
    fusions.sort(key=lambda fusion: -fusion.cycles)
    by_kind = collections.defaultdict(list)
    for run in runs:
        by_kind[run.instruction.kind.removesuffix("-start")].append(run)
    others = {
        kind: [run for run in by_kind[kind] if _estimate(run) is None] for kind in _NOT_ESTIMATED
    }
    unknown = [run.instruction for run in runs if run.times is not None and run.inner is None]
    return Analysis(
        cycles=None if unknown else sum(fusion.cycles for fusion in fusions),
        fusions=fusions,
        collectives=[
            Collective(kind, _total(by_kind[kind]), _total(by_kind[kind], _bytes_of))
            for kind in _COLLECTIVES
            if by_kind[kind]
        ],
        not_estimated={kind: _total(found) for kind, found in others.items() if found},
        loops=len(by_kind["while"]),
        unknown_loops=[instruction.op or instruction.name for instruction in unknown],
    )


def _estimate(run: Run) -> int | None:
    """Returns the compiler's estimate of one run."""
    found = re.search(r'"estimated_cycles":"(\d+)"', run.instruction.attributes)
    return int(found[1]) if found else None


def _fusion(run: Run) -> Fusion | None:
    estimate, instruction = _estimate(run), run.instruction
    if estimate is None or run.times is None:
        return None
    cycles = estimate * run.times
    return Fusion(cycles, run.times, instruction.name, instruction.op, instruction.result)


def _total(runs: Sequence[Run], of_one: Callable[[str], int] = lambda result: 1) -> int | None:
    """Sums `of_one(result)` over all runs."""
    if any(run.times is None for run in runs):
        return None
    return sum(run.times * of_one(run.instruction.result) for run in runs)


def _bytes_of(result: str) -> int:
    """Returns the bytes of `f32[2,64]{1,0:T(8,128)}`, or of a tuple of such."""
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims in arrays
    )
