"""Writes a recipe's lowered step, and what TensorFlow computes by it, for a machine without it."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.preflight.flop import training_flop
from simclr_tf.training.lowered_step import lower_step, per_replica
from simclr_tf.training.run import Run


def export(folder: pathlib.Path, *, data_dir: str | None, devices: int, batches: int) -> None:
    """Exports the step of the loaded recipe; `smoke_run.py` reads the folder.

    Args:
      folder: is made; gets `program.mlir`, `variables.npz`, `batches.npz` and `smoke.json`.
      data_dir: the folder of the recipe's data.
      devices: how many will run the step.
      batches: how many batches are exported, and steps taken by TensorFlow on this CPU.
    """
    context = Context(model_dir="", data_dir=data_dir, tpu="none")
    run = pretraining(context, strategy=lambda **_: LoweringStrategy(devices))
    lowered = lower_step(run, run.pipeline)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.mlir").write_text(lowered.stablehlo)
    values = {f"{i}": v.numpy() for i, v in enumerate(lowered.variables)}
    np.savez(folder / "variables.npz", **values)
    np.savez(folder / "batches.npz", **_batches(run, devices, batches))
    number = {v.ref(): i for i, v in enumerate(lowered.variables)}
    numbers = _by_tensorflow(context, run, batches)
    told = {
        "devices": devices,
        "updated": [number[v.ref()] for v in lowered.updated],
        "metrics": [metric.name for metric in run.metrics],
        "expected": [[float(n) for n in step] for step in numbers],
        "images": run.plan.global_batch_size,
        "flop": training_flop(run.method, run.plan.global_batch_size) // devices,
        "precision": run.plan.precision,
        "by": f"TensorFlow {tf.__version__} on a CPU",
    }
    (folder / "smoke.json").write_text(json.dumps(told, indent=1))


def _batches(run: Run, devices: int, count: int) -> dict[str, np.ndarray]:
    """Returns 'S_I', tensor I of step S: [devices, ...]."""
    host = HostSlice(0, 1, devices, per_replica(run))
    data = iter(run.pipeline.dataset(host))
    found = {}
    for step in range(count):
        parts = [tf.nest.flatten(next(data)) for _ in range(devices)]
        for i, tensors in enumerate(zip(*parts, strict=True)):
            found[f"{step}_{i}"] = np.stack([t.numpy() for t in tensors])
    return found


def _by_tensorflow(context: Context, like: Run, steps: int) -> list[np.ndarray]:
    """Returns the numbers of the first steps of the same run on one device of TensorFlow."""
    run = pretraining(
        context,
        strategy=lambda **_: tf.distribute.get_strategy(),
        precision=like.plan.precision,
        augment_on=like.plan.augment_on,
    )
    step = tf.function(run.train_step(), autograph=False)
    batches = iter(run.pipeline.dataset(HostSlice(0, 1, 1, run.plan.global_batch_size)))
    return [step(next(batches)).numpy() for _ in range(steps)]
