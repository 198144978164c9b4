"""The step of a stage, lowered for the replicas of a run."""

from __future__ import annotations

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.lowering import Program, lower
from simclr_tf.training.run import Run


def per_replica(run: Run) -> int:
    """Returns B, images per replica and step."""
    return run.plan.global_batch_size // run.plan.num_replicas


def lower_step(run: Run, pipeline: ViewsPipeline) -> Program:
    """Lowers the replica function of the stage with this input."""
    spec = pipeline.element_spec(per_replica(run), run.plan.num_replicas)
    return lower(run.strategy, run.train_step(pipeline), spec)
