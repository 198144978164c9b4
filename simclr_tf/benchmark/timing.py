"""Compares programs on a noisy machine: they take turns, and the ratio within a round counts."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from simclr_tf import system_memory


@dataclasses.dataclass(frozen=True)
class Timing:
    """Measurements of one contestant.

    Attributes:
      name: name in the table.
      rates: units per second, one number per round.
      ratios: ratio of each rate to the baseline's of the same round.
      peak_mib: the largest growth of the process while it ran, MiB; None if the system does not
        tell. Memory that an earlier contestant left with the allocator is not counted again.
    """

    name: str
    rates: tuple[float, ...]
    ratios: tuple[float, ...]
    peak_mib: float | None

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def take_turns(
    contestants: Mapping[str, Callable[[], int]], *, rounds: int, baseline: str
) -> list[Timing]:
    """Runs every contestant once per round, in rotating order, after one run that does not count.

    Args:
      contestants: name -> a function that completes some work, and returns how many units of it
        (images, steps) it did. Its method `prepare`, if it has one, does uncounted work before.
      rounds: how often each is timed.
      baseline: name of the contestant that the others are compared with.

    Returns:
      A timing for each contestant, in their order.
    """
    names = list(contestants)
    peaks = {name: _growth(contestants[name]) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            getattr(contestants[name], "prepare", _nothing)()
            start = time.perf_counter()
            units = contestants[name]()
            rates[name].append(units / (time.perf_counter() - start))
    return [
        Timing(
            name,
            tuple(rates[name]),
            tuple(rate / base for rate, base in zip(rates[name], rates[baseline], strict=True)),
            peaks[name],
        )
        for name in names
    ]


def table(timings: Sequence[Timing], unit: str) -> str:
    """Returns a Markdown table: medians, with the least and largest of all rounds in brackets."""
    lines = [
        f"| | {unit}/s | ratio | peak growth (MiB) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for t in timings:
        peak = "" if t.peak_mib is None else f"{t.peak_mib:,.0f}"
        lines.append(
            f"| {t.name} | {_digits(t.rate)} ({_digits(min(t.rates))} to {_digits(max(t.rates))}) "
            f"| {t.ratio:.2f} ({min(t.ratios):.2f} to {max(t.ratios):.2f}) | {peak} |"
        )
    return "\n".join(lines)


def median_and_range(numbers: Sequence[float], form: str) -> str:
    """Returns the median, with the least and the largest number in brackets."""
    return f"{statistics.median(numbers):{form}} ({min(numbers):{form}} to {max(numbers):{form}})"


def _digits(rate: float) -> str:
    return f"{rate:,.1f}" if rate >= 1 else f"{rate:.3g}"


def machine() -> str:
    """Describes the machine behind the numbers: versions, processor, and load."""
    import keras
    import tensorflow as tf

    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        processor = re.search(r"model name\s*: (.*)", text)[1]
    except (OSError, TypeError):
        processor = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = len(tf.config.list_physical_devices("GPU"))
    return (
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python "
        f"{platform.python_version()}; {processor}, {cores} cores, {gpus} GPUs; "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def _nothing() -> None:
    pass


def _growth(run: Callable[[], int]) -> float | None:
    """Returns the MiB by which resident memory rose at most during `run`."""
    getattr(run, "prepare", _nothing)()
    system_memory.start_peak()
    before = system_memory.resident_mib()
    run()
    return None if before is None else system_memory.peak_mib() - before
