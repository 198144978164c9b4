"""Explains why TensorFlow does not see the NVIDIA card of this host."""

from __future__ import annotations

import os
import pathlib

import tensorflow as tf

from simclr_tf.distribute import environment
from simclr_tf.errors import RequestError


def check_gpus_are_seen(root: str = "/") -> None:
    """Raises RequestError if the CPU would compute beside an NVIDIA card, unless requested.

    `CUDA_VISIBLE_DEVICES=` (empty) or `-1` requests the CPU.

    Args:
      root: root of the file system that has /dev, /proc and /sys.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return
    card = environment.nvidia_card(root)
    if card is None or tf.config.list_physical_devices("GPU"):
        return
    cause, mend = _why_unseen(pathlib.Path(root))
    wheels = ", ".join(f"{n} {v}" for n, v in environment.tensorflow_owners().items())
    raise RequestError(
        f"TensorFlow must see the NVIDIA card of this host. Received: {card}, but no GPU in "
        f"{wheels or tf.__version__}. Cause: {cause}. To mend it, {mend}. To compute on the CPU, "
        "set CUDA_VISIBLE_DEVICES= (to nothing)."
    )


def _why_unseen(base: pathlib.Path) -> tuple[str, str]:
    """Returns the cause and the fix."""
    again = environment.reinstall("gpu")
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA", again
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return (
            f"CUDA_VISIBLE_DEVICES={chosen} may name no card of this host",
            "unset CUDA_VISIBLE_DEVICES, or set it to numbers that `nvidia-smi -L` lists",
        )
    if not (base / "proc/driver/nvidia/version").exists():
        return (
            "the NVIDIA driver is not loaded",
            "install it, until `nvidia-smi` lists the card",
        )
    if not any(base.glob("dev/nvidia[0-9]*")):
        return (
            "the card has no device file (/dev/nvidia0), as in a container that was not given it",
            "start the container with the card (`docker run --gpus all`)",
        )
    if not any(environment.installed(f"nvidia-cudnn-cu{major}") for major in (12, 13)):
        return "the CUDA libraries of TensorFlow's wheel are not installed", again
    return (
        "unknown to this program",
        "see what TensorFlow says with TF_CPP_MIN_LOG_LEVEL=0",
    )
