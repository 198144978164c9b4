"""The cost of storing a recipe's networks: its checkpoints, and the final SavedModel."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simclr_tf import config
from simclr_tf.export.saved_model import export_networks
from simclr_tf.training.checkpoints import Checkpoints
from simclr_tf.training.run import Run


def measure(run: Run, rounds: int) -> str:
    """Times the storing that `pretrain` does for networks and optimizer, in a temporary folder.

    Every round saves and restores a checkpoint, exports a SavedModel, loads it in this process and
    computes the representation of one image with it.

    Returns:
      A table of seconds, and of MiB on the disk.
    """
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for stage, took in _round(run, folder).items():
                seconds.setdefault(stage, []).append(took)
            sizes = {
                "save a checkpoint": _mib(os.path.join(folder, "checkpoints")),
                "export the SavedModel": _mib(os.path.join(folder, "saved_model")),
            }
    lines = ["| | seconds | MiB on the disk |", "| --- | ---: | ---: |"]
    for stage, took in seconds.items():
        size = f"{sizes[stage]:,.1f}" if stage in sizes else ""
        middle = statistics.median(took)
        lines.append(f"| {stage} | {middle:.3f} ({min(took):.3f} to {max(took):.3f}) | {size} |")
    return "\n".join(lines)


def _round(run: Run, folder: str) -> dict[str, float]:
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[..., Any], *args, **kwargs) -> Any:
        start = time.perf_counter()
        result = work(*args, **kwargs)
        seconds[stage] = time.perf_counter() - start
        return result

    size = run.plan.image_size
    checkpoints = Checkpoints(folder, run.groups(), run.settings)
    timed("save a checkpoint", checkpoints.save, 0)
    timed("restore it", checkpoints.restore)
    exported = timed(
        "export the SavedModel",
        export_networks,
        folder,
        0,
        run.method.exported(),
        lambda: run.rebuild().exported(),
        image_size=size,
        recipe=config.record(),
    )
    model = timed("load it", tf.saved_model.load, exported)
    represent = model.signatures["serving_default"]
    image = tf.zeros([1, size, size, 3])
    timed("its first request", represent, images=image)
    timed("its second request", represent, images=image)
    return seconds


def _mib(folder: str) -> float:
    files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(map(os.path.getsize, files)) / 2**20
