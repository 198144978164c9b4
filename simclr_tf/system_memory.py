"""Memory of the host: what this process holds of it, and what it may still take."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def resident_mib() -> float | None:
    """Resident memory of this process in MiB; None where the system does not tell (not Linux)."""
    return _field("VmRSS")


def peak_mib() -> float | None:
    """The most that has been resident since the start, or `start_peak`."""
    return _field("VmHWM")


def start_peak() -> None:
    """Resets the peak to what is resident now, where the system can."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def available_bytes(root: str = "/") -> int | None:
    """What the machine and every control group around this process leave; None if unknown.

    A container's limit is its control group's. Cached files, which the system gives up when memory
    is short, count as free, as they do in `free`'s column "available".

    Args:
      root: of the file system that has /proc and /sys.
    """
    base = pathlib.Path(root)
    left = [
        *_machine(base / "proc/meminfo"),
        *_groups(base / "proc/self/cgroup", base / "sys/fs/cgroup"),
    ]
    return max(min(left), 0) if left else None


def _field(name: str) -> float | None:
    found = re.search(rf"{name}:\s*(\d+) kB", _read(_STATUS))
    return int(found[1]) / 1024 if found else None


def _machine(meminfo: pathlib.Path) -> Iterator[int]:
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read(meminfo))
    if found:
        yield int(found[1]) * 1024


def _groups(membership: pathlib.Path, mounts: pathlib.Path) -> Iterator[int]:
    """A line of `membership` is ID:CONTROLLERS:PATH, without controllers in version 2."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, files = mounts, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = mounts / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _left_in(folder, *files)
            if folder == top:
                break


def _left_in(folder: pathlib.Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
    if most.isdigit() and used.isdigit():
        cached = re.search(rf"^{reclaimable} (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
        yield int(most) - int(used) + (int(cached[1]) if cached else 0)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
