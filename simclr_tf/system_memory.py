"""Memory of the host: what this process uses, and what is still available."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def resident_mib() -> float | None:
    """Returns this process's resident memory in MiB; None if unknown (not Linux)."""
    return _field("VmRSS")


def peak_mib() -> float | None:
    """Returns the peak of resident memory in MiB since the start, or since `start_peak`."""
    return _field("VmHWM")


def start_peak() -> None:
    """Resets the peak to the current resident memory, if the system can."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def available_bytes(root: str = "/") -> int | None:
    """Returns the bytes left by the machine and by every control group around this process.

    A container's limit is its control group's. Cached files, which the system evicts when memory
    is short, count as free, as in `free`'s column "available". None if unknown.

    Args:
      root: root of the file system that has /proc and /sys.
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
    """Yields the bytes left in each group.

    A line of `membership` is ID:CONTROLLERS:PATH, without controllers in version 2.
    """
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
