"""The strategy of runs whose steps a PJRT client takes; importing it does not import jax."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import tensorflow as tf

from simclr_tf.distribute import environment
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.distribute.xla import check_host_compiles
from simclr_tf.errors import RequestError

if TYPE_CHECKING:
    from simclr_tf.distribute.pjrt.client import Devices


class PjrtStrategy(LoweringStrategy):
    """Each device is a replica.

    TensorFlow's variables are the host's copies; `training/pjrt.py` says when they are current.

    Args:
      devices: the devices.
    """

    def __init__(self, devices: Devices):
        super().__init__(devices.count)
        self.devices = devices


def pjrt_strategy(cpu_replicas: int) -> PjrtStrategy:
    """Starts jax's client; TensorFlow keeps to the CPU from now on.

    Args:
      cpu_replicas: virtual devices of the CPU, where that is what there is or more than one.

    Raises:
      RequestError: jax is not installed, was not tried in its version, or lacks the devices.
    """
    _check_jax()
    with contextlib.suppress(RuntimeError):  # once TensorFlow has started
        tf.config.set_visible_devices([], "GPU")
    check_host_compiles("--runtime=pjrt", "cpu,pjrt")
    from simclr_tf.distribute.pjrt import client

    return PjrtStrategy(client.start(cpu_replicas))


def _check_jax() -> None:
    """Raises RequestError unless jax is installed in a version whose inner calls are known."""
    low, below = environment.SUPPORTED["jax"]
    version = environment.installed("jax")
    if version is None or not environment.is_supported("jax", version):
        raise RequestError(
            f"--runtime=pjrt needs jax from {low} to below {below}, since it makes calls of jax "
            f"that are not public. Received: {f'jax {version}' if version else 'no jax'}. Run "
            "pip install -e '.[pjrt]', and for an accelerator jax's plug-in (docs/runtimes.md)."
        )
