"""The step of a stage, lowered for the replicas of a run, and the batches that it takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.lowering import Program, lower
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.training.run import Run


def per_replica(run: Run) -> int:
    """Returns B, images per replica and step."""
    return run.plan.global_batch_size // run.plan.num_replicas


def lower_step(run: Run, pipeline: ViewsPipeline) -> Program:
    """Lowers the replica function of the stage with this input."""
    spec = pipeline.element_spec(per_replica(run), run.plan.num_replicas)
    return lower(run.strategy, run.train_step(pipeline), spec)


def batches_by_replica(
    run: Run, pipeline: ViewsPipeline, step: int
) -> Iterator[list[list[np.ndarray]]]:
    """Yields batches from `step` on: for each tensor, flat, the part of each replica."""
    replicas = run.plan.num_replicas
    batches = iter(pipeline.dataset(HostSlice(0, 1, replicas, per_replica(run)), step))
    while True:
        parts = [tf.nest.flatten(next(batches)) for _ in range(replicas)]
        yield [[t.numpy() for t in tensors] for tensors in zip(*parts, strict=True)]
