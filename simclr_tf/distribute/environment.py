"""What can be told of an installation without importing TensorFlow: its wheels, and its TPU.

A wrong libtpu must be found before `import tensorflow`: on a TPU host that loads libtpu, and one
without a function that tensorflow-tpu looks for ends the process (SIGABRT), with nothing to catch.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import re

# From the first on and below the second, as setup.py asks for them.
SUPPORTED = {
    "tensorflow": ("2.19", "2.22"),
    "tensorflow-tpu": ("2.20", "2.21"),
    # Tried beside tensorflow-tpu 2.20.0: 0.0.14, 0.0.20, 0.0.21, 0.0.30 and 0.0.31 load; 0.0.32 to
    # 0.0.35 and 0.0.52 abort ("... not available in this library").
    "libtpu": ("0.0.14", "0.0.31"),
}
# They tell libtpu which chips of which hosts are its own.
LAYOUT_VARIABLES = (
    "TPU_PROCESS_ADDRESSES",
    "TPU_PROCESS_BOUNDS",
    "TPU_PROCESS_PORT",
    "TPU_HOST_BOUNDS",
    "TPU_CHIPS_PER_PROCESS_BOUNDS",
    "TPU_CHIPS_PER_HOST_BOUNDS",
    "TPU_VISIBLE_CHIPS",
    "TPU_VISIBLE_DEVICES",
    "TPU_WORKER_HOSTNAMES",
    "TPU_WORKER_ID",
    "CLOUD_TPU_TASK_ID",
)


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_supported(distribution: str, version: str) -> bool:
    """Whether `version` lies in the supported range."""
    low, below = SUPPORTED[distribution]
    return _numbers(low) <= _numbers(version) < _numbers(below)


def tensorflow_owners() -> dict[str, str]:
    """The distributions that hold the files of the module `tensorflow`, with their versions."""
    owners = {}
    for found in importlib.metadata.distributions():
        record = found.read_text("RECORD") or ""
        if record.startswith("tensorflow/__init__.py,") or "\ntensorflow/__init__.py," in record:
            name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
            owners.setdefault(name, found.version)
    return owners


def libtpu_problem() -> str | None:
    """What is wrong with libtpu beside tensorflow-tpu, in words, or None."""
    tpu, libtpu = installed("tensorflow-tpu"), installed("libtpu")
    if tpu is None or libtpu is None or is_supported("libtpu", libtpu):
        return None
    low, below = SUPPORTED["libtpu"]
    return (
        f"libtpu must be at least {low} and below {below} beside tensorflow-tpu {tpu}; from 0.0.32 "
        f"on it ends the process at `import tensorflow`. Received: libtpu {libtpu}."
    )


def reinstall(extra: str) -> str:
    """The command that makes an environment with the right wheels alone."""
    return f'in a fresh virtual environment: pip install -e ".[{extra}]"'


def extra_for_this_host() -> str:
    """The extra of setup.py that this machine calls for."""
    if has_tpu_devices() or installed("tensorflow-tpu"):
        return "tpu"
    return "gpu" if os.path.exists("/dev/nvidiactl") else "cpu"


def has_tpu_devices() -> bool:
    """Whether there are device files such as a TPU VM has."""
    return bool(glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*"))


def _numbers(version: str) -> tuple[int, ...]:
    """2.20.0rc1 -> (2, 20, 0)."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))
