"""What a person can ask for, one gin-configurable function a file.

This module stays light: it knows the names for the command line, and imports the jobs themselves
(and with them TensorFlow) only when one is about to run.
"""

from __future__ import annotations

import functools
import importlib
import pathlib
from collections.abc import Callable, Sequence

from simclr_tf.context import Context

NAMES = (
    "pretrain",
    "linear_eval",
    "lbfgs",
    "knn",
    "watch",
    "probe_invariance",
    "embed",
    "finetune",
    "supervised",
    "export",
    "quickstart",
    "preflight",
)


def load() -> dict[str, Callable[[Context], object]]:
    """Imports every job, which also registers what recipes may configure.

    Returns:
      The jobs by name; each publishes its result.
    """
    jobs = {n: getattr(importlib.import_module(f"simclr_tf.jobs.{n}"), n) for n in NAMES}
    return {name: functools.partial(_run, job) for name, job in jobs.items()}


def _run(job: Callable[[Context], object], context: Context) -> None:
    from simclr_tf.evaluation.result import Result, publish

    found = job(context)
    if isinstance(found, Result):
        publish(found, context.model_dir)


def default_model_dir(gin_files: Sequence[str]) -> str:
    """runs/<name of the last recipe>."""
    return str(pathlib.Path("runs") / (pathlib.Path(gin_files[-1]).stem if gin_files else "run"))
