"""What can be told of a host without importing TensorFlow: its wheels, its TPU and its GPUs.

A wrong libtpu must be found before `import tensorflow`: on a TPU host that loads libtpu, and one
without a function that tensorflow-tpu looks for ends the process (SIGABRT), with nothing to catch.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterator

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
# PCI vendors, as /sys/bus/pci writes them, and classes of what Google also makes for its machines.
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
# As in the accelerator types v3-8, v5litepod-8 and tpu-v5-lite-podslice.
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
    return "gpu" if nvidia_card() else "cpu"


def tpu_name(asked: str) -> str:
    """What `--tpu=asked` comes to on this machine: the name of a TPU, `local`, or `none`.

    `auto` is TPU_NAME where that is set, then this host's own TPU, then none. Whether TensorFlow
    can use that TPU does not count: training on the CPU beside it must be asked for.
    """
    if asked != "auto":
        return asked
    return os.environ.get("TPU_NAME") or ("local" if has_tpu_devices() else "none")


def has_tpu_devices(root: str = "/") -> bool:
    """Whether there are device files such as a TPU VM has.

    VFIO passes any card through to a virtual machine, so that /dev/vfio counts only beside a card
    of Google's that is neither disk nor network, or where the cards cannot be seen.

    Args:
      root: of the file system that has /dev and /sys.
    """
    base = pathlib.Path(root)
    if any(base.glob("dev/accel[0-9]*")):
        return True
    cards = list(_pci_cards(base))
    passed = not cards or any(v == _GOOGLE and k[:4] not in (_DISK, _NETWORK) for v, _, k in cards)
    return passed and any(base.glob("dev/vfio/[0-9]*"))


def tpu_generation(root: str = "/") -> str | None:
    """The generation of this host's TPU, such as `v5e`; None if there is none, or an unknown one.

    It is told by the cards' PCI ids, and where these cannot be seen by TPU_ACCELERATOR_TYPE or
    ACCELERATOR_TYPE. Google's metadata server, which knows as well, is not asked: outside Google
    Cloud the answer takes minutes.

    Args:
      root: of the file system that has /sys.
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
    """By what this host is seen to have an NVIDIA card, or None.

    Args:
      root: of the file system that has /dev, /proc and /sys.
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
    """Vendor, device and class of every card; nothing where they cannot be read."""
    for folder in sorted(base.glob("sys/bus/pci/devices/*")):
        try:
            vendor, device, kind = (
                (folder / name).read_text().strip() for name in ("vendor", "device", "class")
            )
        except OSError:
            continue
        yield vendor, device, kind


def _numbers(version: str) -> tuple[int, ...]:
    """2.20.0rc1 -> (2, 20, 0)."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))
