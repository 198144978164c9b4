"""Prints TensorFlow's version and devices as JSON; `tools/doctor.py` runs this as a process."""

from __future__ import annotations

import collections
import json

import keras
import tensorflow as tf

from simclr_tf.distribute import gpu, strategy
from simclr_tf.errors import RequestError


def probe() -> dict:
    """Starts TensorFlow and its devices, and returns what it found."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "devices": collections.Counter(d.device_type for d in tf.config.list_logical_devices()),
        "unseen_gpu": _unseen_gpu(),
        "schemes": tf.io.gfile.get_registered_schemes(),
        "bf16": sorted({"avx512_bf16", "amx_bf16"} & strategy._cpu_flags()),
        "precision": strategy.fast_precision(tf.distribute.get_strategy()),
    }


def _unseen_gpu() -> str:
    """Returns why a run would be refused, or an empty string."""
    try:
        gpu.check_gpus_are_seen()
    except RequestError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(probe()))
