"""How much memory of the host this process holds, for reports and benchmarks."""

from __future__ import annotations

import contextlib
import pathlib
import re

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def resident_mib() -> float | None:
    """Resident memory of this process in MiB; None where the system does not tell (not Linux)."""
    return _field("VmRSS")


def peak_mib() -> float | None:
    """The most that has been resident since the start, or `start_peak`."""
    return _field("VmHWM")


def start_peak() -> None:
    """Lets the peak start anew at what is resident now, where the system can."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def _field(name: str) -> float | None:
    try:
        found = re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
