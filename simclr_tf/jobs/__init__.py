"""The jobs of the command line, one gin-configurable function per file.

This module stays light: it knows the names for the command line, and imports the jobs themselves
(and with them TensorFlow) only when one is about to run.
"""

from __future__ import annotations

import functools
import importlib
import inspect
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
    "label_free",
    "embed",
    "finetune",
    "distill",
    "supervised",
    "export",
    "quickstart",
    "preflight",
    "study",
    "study_report",
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
    jobs = {name: _function(name) for name in MODULES}
    return {name: functools.partial(_run, name, job) for name, job in jobs.items()}


def checked(requested: str | None) -> str:
    """Returns the job to run, after checking the loaded recipe for it.

    Raises:
      RequestError: the job is unknown, or the recipe holds what it would not use.
    """
    from simclr_tf import config

    job = config.job_name(requested, tuple(MODULES))
    # A recipe describes an encoder's pretraining, and other jobs use the parts that they need.
    others = {config.job_name(name, tuple(MODULES)) for name in config.recipe_jobs()}
    config.check({"pretrain", job, *others})
    return job


def added_modules() -> dict[str, str]:
    """Returns the jobs that a program added to `MODULES`, with their modules."""
    return {name: module for name, module in MODULES.items() if name not in _NAMES}


def added_evaluations() -> dict[str, Callable]:
    """Returns evaluations that a program added to `MODULES`, by name: they take `encoder`."""
    added = {name: _function(name) for name in added_modules()}
    return {n: job for n, job in added.items() if "encoder" in inspect.signature(job).parameters}


def _function(name: str) -> Callable:
    module = importlib.import_module(MODULES[name])
    if not hasattr(module, name):
        raise AttributeError(
            f"The job {name!r} must be a function of that name. Received: the module "
            f"{MODULES[name]!r}, which has none."
        )
    return getattr(module, name)


def _run(name: str, job: Callable[[Context], object], context: Context) -> None:
    from simclr_tf.evaluation.result import Result, publish

    found = job(context)
    if isinstance(found, Result):
        publish(found, context.model_dir)
    elif not isinstance(found, (str, type(None))):  # a path that was written, or nothing
        raise TypeError(
            f"The job {name!r} must return a Result, a path or None. Received: "
            f"{type(found).__name__}."
        )


def default_model_dir(gin_files: Sequence[str]) -> str:
    """Returns runs/<name of the last recipe>."""
    return str(pathlib.Path("runs") / (pathlib.Path(gin_files[-1]).stem if gin_files else "run"))
