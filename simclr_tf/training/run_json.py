"""run.json: describes a run, and each of its starts with the command and the machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import simclr_tf
from simclr_tf.files import write_text


def record_start(
    model_dir: str, *, job: str, plan: Mapping[str, str], total_steps: int, step: int
) -> None:
    """Writes `run.json`, or adds a start to it.

    Args:
      model_dir: the run's folder.
      job: the job's name.
      plan: the lines of the plan as printed, name -> text.
      total_steps: the run's length.
      step: the step from which this start resumes.
    """
    path = os.path.join(model_dir, "run.json")
    start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "step": step,
        "command": shlex.join([os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:]]),
        "environment": environment(),
    }
    record = {
        "job": job,
        "total_steps": total_steps,
        "plan": {name.strip(): text for name, text in plan.items()},
        "starts": [*_earlier_starts(path), start],
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def environment() -> dict[str, Any]:
    """Returns versions, platform and devices of this process."""
    return {
        "simclr_tf": simclr_tf.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "devices": _devices(),
    }


def _devices() -> str:
    names = Counter()
    for device in tf.config.list_logical_devices():
        names[device.device_type] += 1
    kinds = {
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    }
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(names.items()))
    return said + (f" ({', '.join(sorted(kinds))})" if kinds else "")


def _earlier_starts(path: str) -> list[dict[str, Any]]:
    if not tf.io.gfile.exists(path):
        return []
    try:
        with tf.io.gfile.GFile(path) as file:
            return json.load(file)["starts"]
    except (ValueError, KeyError, TypeError):
        return []  # damaged: a record is no reason to refuse to resume
