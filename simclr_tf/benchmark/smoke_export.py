"""Writes a recipe's lowered step, and what TensorFlow computes by it, for a machine without it."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.preflight.flop import training_flop
from simclr_tf.training.lowered_step import batches_by_replica, lower_step
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
    np.savez(folder / "batches.npz", **_batches(run, batches))
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


def _batches(run: Run, count: int) -> dict[str, np.ndarray]:
    """Returns 'S_I', tensor I of step S: [devices, ...]."""
    batches = itertools.islice(batches_by_replica(run, run.pipeline, 0), count)
    return {
        f"{step}_{i}": np.stack(parts)
        for step, tensors in enumerate(batches)
        for i, parts in enumerate(tensors)
    }


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
