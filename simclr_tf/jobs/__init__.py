"""The jobs of the command line, one gin-configurable function per file.

This module stays light: it knows the names for the command line, and imports the jobs themselves
(and with them TensorFlow) only when one is about to run.
"""

from __future__ import annotations

import functools
import importlib
import pathlib
from collections.abc import Callable, Sequence

from simclr_tf.context import Context

_NAMES = (
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
# A job's name -> the module with the function of that name. A program that extends this one adds
# its own.
MODULES = {name: f"simclr_tf.jobs.{name}" for name in _NAMES}
# Modules that are imported with the jobs, such as those that define a method or an op.
EXTENSIONS: list[str] = []


def load() -> dict[str, Callable[[Context], None]]:
    """Imports every job and extension, which also registers what recipes may configure.

    Returns:
      The jobs by name; each publishes its result.
    """
    for extension in EXTENSIONS:
        importlib.import_module(extension)
    jobs = {n: getattr(importlib.import_module(module), n) for n, module in MODULES.items()}
    return {name: functools.partial(_run, job) for name, job in jobs.items()}


def _run(job: Callable[[Context], object], context: Context) -> None:
    from simclr_tf.evaluation.result import Result, publish

    found = job(context)
    if isinstance(found, Result):
        publish(found, context.model_dir)


def default_model_dir(gin_files: Sequence[str]) -> str:
    """Returns runs/<name of the last recipe>."""
    return str(pathlib.Path("runs") / (pathlib.Path(gin_files[-1]).stem if gin_files else "run"))
