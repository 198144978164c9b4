"""Claims: of several processes on one folder, on any hosts, each cell belongs to one at a time.

A claim is a numbered file that is created exclusively. Its owner touches it every few seconds and
holds a kernel's lock on it, as does the process that runs the cell. A claim without an owner is
taken over by creating the next number, which again only one process can do.

On the owner's host the lock tells at once that the owner is gone, however it ended. On other hosts
the file says so when it has not changed for a while; only changes count, so clocks need not agree.
`training.lease` does the same for object stores, which create nothing exclusively.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_INTERVAL, _PATIENCE = 15.0, 120.0  # seconds between two touches, and without one


class Claim:
    """A cell that this process owns, until `give_back`."""

    def __init__(self, path: pathlib.Path, file: int, clock: Callable[[], float]):
        self.path = path
        self._file, self._clock = file, clock
        hold(file)
        os.write(file, json.dumps({**_kernel(), "process": os.getpid()}).encode())
        self._touched = clock()

    def beat(self) -> bool:
        """Shows that the owner lives; returns whether it still is the owner.

        A process that was halted for long may find that it no longer is.
        """
        if self._clock() - self._touched >= _INTERVAL:
            os.utime(self._file)
            self._touched = self._clock()
        newest = max(_numbers(self.path.parent, self.path.stem), default=0)
        return newest == int(self.path.suffix[1:])

    def give_back(self) -> None:
        """Ends the ownership."""
        self.path.unlink(missing_ok=True)
        os.close(self._file)


class Claims:
    """Takes claims in a folder.

    Args:
      folder: shared by all processes.
      clock: seconds that only grow.
    """

    def __init__(self, folder: pathlib.Path, clock: Callable[[], float] = time.monotonic):
        self._folder, self._clock = folder, clock
        self._seen: dict[pathlib.Path, tuple[int, float]] = {}  # time of change, when first seen

    def take(self, name: str) -> Claim | None:
        """Returns the claim of a cell; None while another process has it."""
        numbers = _numbers(self._folder, name)
        newest = max(numbers, default=0)
        if newest and not self._is_left(self._path(name, newest)):
            return None
        path = self._path(name, newest + 1)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        claim = Claim(path, file, self._clock)
        for number in numbers:
            self._path(name, number).unlink(missing_ok=True)
        return claim

    def _path(self, name: str, number: int) -> pathlib.Path:
        return self._folder / f"{name}.{number}"

    def _is_left(self, path: pathlib.Path) -> bool:
        """Returns whether the owner of a claim is gone."""
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:  # given back at this moment: the next look takes it
            return False
        try:
            text = os.read(file, 10_000)
            if text and _kernel().items() <= _record(text).items():
                held = _is_held(file)
                if held is not None:
                    return not held
            return self._is_silent(path, os.fstat(file).st_mtime_ns)
        finally:
            os.close(file)

    def _is_silent(self, path: pathlib.Path, changed: int) -> bool:
        before, since = self._seen.get(path, (None, 0.0))
        if changed != before:
            self._seen[path] = changed, self._clock()
            return False
        return self._clock() - since > _PATIENCE


def hold(file: int) -> None:
    """Locks a claim for this process, beside others that work for the same owner."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a network file system may have no locks
            fcntl.flock(file, fcntl.LOCK_SH)


def _is_held(file: int) -> bool | None:
    """Returns whether a process of this host locks the claim; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _numbers(folder: pathlib.Path, name: str) -> list[int]:
    suffixes = (p.name.removeprefix(f"{name}.") for p in folder.iterdir())
    return [int(suffix) for suffix in suffixes if suffix.isdecimal()]


def _record(text: bytes) -> dict:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _kernel() -> dict[str, str]:
    """Names the running kernel, whose locks its processes share."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
    }
