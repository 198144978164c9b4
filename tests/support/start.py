"""How TensorFlow starts in each process that runs tests."""

from __future__ import annotations

import os

import tensorflow as tf

from tests.support.program import rewrite_graphs
from tests.support.small_resnet import register_small_depths


def start_tensorflow() -> None:
    """Makes four logical CPUs and small networks, and leaves graphs as they are traced.

    Most graphs run once. A person's runs, with the rewrites, are of end_to_end.
    """
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
    )
    if not tf.config.list_physical_devices("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # jobs refuse the CPU beside a card they do not see
    register_small_depths()
    rewrite_graphs(False)
