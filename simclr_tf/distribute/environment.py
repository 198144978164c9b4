"""Inspects a host without importing TensorFlow: its wheels, its TPU and its GPUs.

A wrong libtpu must be found before `import tensorflow`. On a TPU host that import loads libtpu, and
a libtpu without a function that tensorflow-tpu needs aborts the process (SIGABRT) uncatchably.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterator

# From the first version on and below the second, as setup.py requires.
SUPPORTED = {
    "tensorflow": ("2.19", "2.22"),
    "tensorflow-tpu": ("2.20", "2.21"),
    # Tried with tensorflow-tpu 2.20.0: 0.0.14, 0.0.20, 0.0.21, 0.0.30 and 0.0.31 load; 0.0.32 to
    # 0.0.35 and 0.0.52 abort ("... not available in this library").
    "libtpu": ("0.0.14", "0.0.31"),
    # Tried with 0.10.2: `distribute/pjrt/client.py` makes calls that are not public.
    "jax": ("0.10.2", "0.11"),
}
# Variables that tell libtpu which chips of which hosts to use.
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
# PCI vendors, as /sys/bus/pci writes them, and classes of other cards that Google also makes.
_GOOGLE, _NVIDIA = "0x1ae0", "0x10de"
_DISK, _NETWORK, _DISPLAY = "0x01", "0x02", "0x03"
# PCI device ids of TPUs, by jax 0.10.2 (jax/_src/hardware_utils.py).
_TPU_GENERATIONS = {
    "0x0027": "v2 or v3",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "tpu7x",
}
# Generations by their names in accelerator types: v3-8, v5litepod-8 and tpu-v5-lite-podslice.
_IN_ACCELERATOR_TYPES = {
    "2": "v2",
    "3": "v3",
    "4": "v4",
    "5p": "v5p",
    "5-lite": "v5e",
    "5lite": "v5e",
    "6e": "v6e",
    "7x": "tpu7x",
}


def installed(distribution: str) -> str | None:
    """Returns the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_supported(distribution: str, version: str) -> bool:
    """Returns whether `version` lies in the supported range."""
    low, below = SUPPORTED[distribution]
    return _numbers(low) <= _numbers(version) < _numbers(below)


def tensorflow_owners() -> dict[str, str]:
    """Returns the distributions that hold the module `tensorflow`, with their versions."""
    owners = {}
    for found in importlib.metadata.distributions():
        record = found.read_text("RECORD") or ""
        if record.startswith("tensorflow/__init__.py,") or "\ntensorflow/__init__.py," in record:
            name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
            owners.setdefault(name, found.version)
    return owners


def libtpu_problem() -> str | None:
    """Returns in words what is wrong with libtpu beside tensorflow-tpu, or None."""
    tpu, libtpu = installed("tensorflow-tpu"), installed("libtpu")
    if tpu is None or libtpu is None or is_supported("libtpu", libtpu):
        return None
    low, below = SUPPORTED["libtpu"]
    return (
        f"libtpu must be at least {low} and below {below} beside tensorflow-tpu {tpu}; from 0.0.32 "
        f"on it ends the process at `import tensorflow`. Received: libtpu {libtpu}."
    )


def reinstall(extra: str) -> str:
    """Returns the command that makes an environment with only the right wheels."""
    return f'in a fresh virtual environment: pip install -e ".[{extra}]"'


def extra_for_this_host() -> str:
    """Returns the extra of setup.py that this machine needs."""
    if has_tpu_devices() or installed("tensorflow-tpu"):
        return "tpu"
    return "gpu" if nvidia_card() else "cpu"


def tpu_name(asked: str) -> str:
    """Resolves `--tpu=asked` on this machine to the name of a TPU, `local`, or `none`.

    `auto` is TPU_NAME if that is set, then this host's own TPU, then none. This ignores whether
    TensorFlow can use the TPU: training on the CPU beside it must be requested.
    """
    if asked != "auto":
        return asked
    return os.environ.get("TPU_NAME") or ("local" if has_tpu_devices() else "none")


def has_tpu_devices(root: str = "/") -> bool:
    """Returns whether there are device files as on a TPU VM.

    VFIO passes any card through to a virtual machine. So /dev/vfio counts only beside a Google card
    that is neither disk nor network, or where the cards cannot be seen.

    Args:
      root: root of the file system that has /dev and /sys.
    """
    base = pathlib.Path(root)
    if any(base.glob("dev/accel[0-9]*")):
        return True
    cards = list(_pci_cards(base))
    passed = not cards or any(v == _GOOGLE and k[:4] not in (_DISK, _NETWORK) for v, _, k in cards)
    return passed and any(base.glob("dev/vfio/[0-9]*"))


def tpu_generation(root: str = "/") -> str | None:
    """Returns the generation of this host's TPU, such as `v5e`; None if there is none, or unknown.

    It follows from the cards' PCI ids or, where these cannot be seen, from TPU_ACCELERATOR_TYPE or
    ACCELERATOR_TYPE. Google's metadata server also knows it, but is not used: outside Google Cloud
    the answer takes minutes.

    Args:
      root: root of the file system that has /sys.
    """
    for vendor, device, _ in _pci_cards(pathlib.Path(root)):
        if vendor == _GOOGLE and device in _TPU_GENERATIONS:
            return _TPU_GENERATIONS[device]
    named = os.environ.get("TPU_ACCELERATOR_TYPE") or os.environ.get("ACCELERATOR_TYPE") or ""
    found = re.match(
        rf"(?:tpu-?)?v?({'|'.join(_IN_ACCELERATOR_TYPES)})\b|(?:tpu-?)?v?(5lite)", named
    )
    return _IN_ACCELERATOR_TYPES[found[1] or found[2]] if found else None


def nvidia_card(root: str = "/") -> str | None:
    """Returns the evidence that this host has an NVIDIA card, or None.

    Args:
      root: root of the file system that has /dev, /proc and /sys.
    """
    base = pathlib.Path(root)
    for pattern in ("dev/nvidia[0-9]*", "dev/nvidiactl", "proc/driver/nvidia/gpus/*"):
        found = sorted(base.glob(pattern))
        if found:
            return f"/{found[0].relative_to(base)}"
    for vendor, device, kind in _pci_cards(base):
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return f"the PCI card {vendor}:{device}"
    return None


def _pci_cards(base: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """Yields vendor, device and class of every card, skipping cards that cannot be read."""
    for folder in sorted(base.glob("sys/bus/pci/devices/*")):
        try:
            vendor, device, kind = (
                (folder / name).read_text().strip() for name in ("vendor", "device", "class")
            )
        except OSError:
            continue
        yield vendor, device, kind


def _numbers(version: str) -> tuple[int, ...]:
    """Parses a version: 2.20.0rc1 -> (2, 20, 0)."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))
