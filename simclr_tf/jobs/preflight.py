"""`preflight`: whether a recipe compiles for a TPU and fits, and how long a step might take."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin

import simclr_tf
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.data.source import Source
from simclr_tf.data.tfds_source import class_names_of
from simclr_tf.distribute import environment
from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.distribute.xla import host_compiles
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import Result
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.preflight.analysis import Analysis, analyse
from simclr_tf.preflight.chips import Topology, parse_topology
from simclr_tf.preflight.flop import training_flop
from simclr_tf.preflight.table import HEADER, details, row
from simclr_tf.training.run import Run

_COMPILER = pathlib.Path(simclr_tf.__file__).parent / "preflight" / "compiler.py"
# Number of images of a data set that is not on this machine; it affects only the schedule.
_IMAGES_ON_PAPER = 10**6


@gin.configurable
def preflight(
    context: Context,
    *,
    pretrain: Callable[..., Run] = pretraining,
    topologies: Sequence[str] = ("v3:8x8",),
    num_classes: int | None = None,
    compiler_python: str = "",
    suggest: bool = False,
) -> Result:
    """Lowers the trainer's replica function, and compiles it with the TPU compiler, without a TPU.

    Args:
      context: the command line's values.
      pretrain: the job whose step is compiled, with all that the recipe binds.
      topologies: slices to compile for, such as `v3:8x8` or `v5e:4x4`.
      num_classes: classes of the online probe, if the data is not on this machine and its name is
        unknown.
      compiler_python: the interpreter of the environment that has jax and libtpu (`[preflight]`);
        by default this one.
      suggest: whether to search for a change that makes the step fit, if it does not.

    Returns:
      The numbers, which the command line writes into `results/preflight.json`.

    Raises:
      RequestError: a topology is unknown, the recipe cannot be assembled for it, the replica
        function holds an op that no TPU runs, or there is no compiler.
    """
    _check_host_compiles()
    parsed = [parse_topology(name) for name in topologies]
    compiler = _Compiler(compiler_python or sys.executable)

    def lower_for(num_devices: int) -> _Step:
        run = pretrain(
            context,
            data=_OnPaper(num_classes),
            strategy=lambda tpu: LoweringStrategy(num_devices, values=False),
        )
        return _lower_step(run)

    lowered = functools.cache(lower_for)  # the program does not depend on the chip
    results = []
    print(HEADER, flush=True)
    for topology in parsed:
        result = _compile_step(lowered, topology, compiler)
        if suggest and not result["fits"]:
            batch = result["images_per_device"] * topology.num_devices
            result["what_would_fit"] = _suggestion(lower_for, topology, batch, compiler)
        results.append(result)
    return Result(
        job="preflight",
        text="\n".join(map(details, results)),
        record={"numbers": results},
        versions=results[0]["versions"] if results else {},
    )


def _check_host_compiles() -> None:
    if not host_compiles():
        wheels = ", ".join(f"{n} {v}" for n, v in environment.tensorflow_owners().items())
        raise RequestError(
            "preflight lowers the step by TensorFlow's XLA for the CPU, which the wheel for TPU "
            f"hosts lacks. Received: {wheels}. Run it {environment.reinstall('cpu,preflight')}"
        )


@dataclasses.dataclass(frozen=True)
class _Step:
    """A lowered training step, with its size per replica and its FLOP count."""

    stablehlo: str
    per_replica: int
    model_flop: int


def _lower_step(run: Run) -> _Step:
    replicas = run.plan.num_replicas
    per_replica = run.plan.global_batch_size // replicas
    spec = run.pipeline.element_spec(per_replica)
    return _Step(
        stablehlo=lower(run.strategy, run.train_step(), spec).stablehlo,
        per_replica=per_replica,
        model_flop=training_flop(run.method, run.probe, per_replica),
    )


@dataclasses.dataclass(frozen=True)
class _OnPaper:
    """Stands in for the recipe's `data`: describes the data, but opens none of it."""

    num_classes: int | None

    def __call__(self, data_dir: str | None) -> Dataset:
        recipe = data(data_dir=data_dir)
        names = range(self.num_classes) if self.num_classes else class_names_of(recipe.spec)
        source = Source(
            name=recipe.spec,
            num_examples=_IMAGES_ON_PAPER,
            class_names=[str(name) for name in names] if names else None,
        )
        return dataclasses.replace(recipe, opened=source)


class _Compiler:
    """The TPU compiler, in a process of its own."""

    def __init__(self, python: str):
        self._python = python
        if not shutil.which(python):
            raise RequestError(
                "preflight.compiler_python must be a Python interpreter. Received: "
                f"{python!r}, which is none."
            )
        if python == sys.executable and not importlib.util.find_spec("libtpu"):
            raise RequestError(
                "preflight needs jax and libtpu. Received: an environment without libtpu. Run "
                "pip install -e '.[preflight]', or install jax and libtpu elsewhere and bind "
                "preflight.compiler_python to that interpreter."
            )

    def __call__(self, stablehlo: str, topology: Topology) -> tuple[dict, Analysis | None]:
        """Returns the compiler's result and, if the program fits, the analysis of its code."""
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("step.mlir", "said.json", "step.hlo")]
            pathlib.Path(files[0]).write_text(stablehlo)
            done = subprocess.run(
                [self._python, str(_COMPILER), files[0], topology.name, *files[1:]],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["no message"]
                reason = next((line for line in said if re.match(r"[\w.]*Error: ", line)), said[-1])
                raise RequestError(
                    f"The TPU compiler must take the program. Received for {topology.name}, from "
                    f"{self._python}: exit code {done.returncode}, {reason}"
                )
            said = json.loads(pathlib.Path(files[1]).read_text())
            if said["num_devices"] != topology.num_devices:
                raise RequestError(
                    f"{topology.name} must have {topology.num_devices} devices. Received from the "
                    f"compiler: {said['num_devices']}."
                )
            if "out_of_memory" in said:
                return said, None
            return said, analyse(pathlib.Path(files[2]).read_text())


def _compile_step(
    step_for: Callable[[int], _Step], topology: Topology, compiler: _Compiler
) -> dict:
    """Compiles a step, prints its row of the table, and returns its numbers."""
    step = step_for(topology.num_devices)
    gc.collect()  # frees the models, since the compiler could use the memory of their weights
    said, analysis = compiler(step.stablehlo, topology)
    chip = topology.chip
    result = {
        "topology": topology.name,
        "devices": topology.num_devices,
        "images_per_device": step.per_replica,
        "model_flop": step.model_flop,
        "hbm_bytes": chip.hbm_bytes,
        **said,
    }
    if "out_of_memory" in said:
        result["fits"] = False
    else:
        used = sum(said[f"{n}_bytes"] for n in ("argument", "output", "temporary", "code"))
        used -= said["aliased_bytes"]
        result |= {
            "used_bytes": used,
            "fits": used <= chip.hbm_bytes,
            **_estimates(step, analysis, topology),
            "collectives": analysis.collectives,
            "not_estimated": analysis.not_estimated,
            "unknown_loops": analysis.unknown_loops,
            "longest": analysis.fusions[:10],
        }
        if analysis.loops:
            result["flop"] = None  # the compiler counts only one iteration of a loop
    print(row(result), flush=True)
    return result


def _estimates(step: _Step, analysis: Analysis, topology: Topology) -> dict[str, float | None]:
    """Returns cycles, seconds and utilization of a step; None if the compiler's text lacks them.

    Raises:
      RuntimeError: the step would compute faster than the chip can, so the estimate is wrong.
    """
    if analysis.cycles is None:
        names = ("estimated_cycles", "estimated_seconds", "estimated_utilization")
        return dict.fromkeys(names)
    seconds = analysis.cycles / topology.chip.clock_hz
    most = seconds * topology.chip.peak_flops
    if step.model_flop > most:
        raise RuntimeError(
            f"An estimate must not exceed the peak of the chip. Received for {topology.name}: "
            f"{step.model_flop:.3e} flop of the model in {analysis.cycles} cycles, whose peak is "
            f"{most:.3e}. Report it: preflight reads the compiled program wrongly."
        )
    return {
        "estimated_cycles": analysis.cycles,
        "estimated_seconds": seconds,
        "estimated_utilization": step.model_flop / most,
    }


_REMEDIES = (
    ("resnet.remat = (1, 2)", {"resnet.remat": (1, 2)}, 1),
    ("resnet.remat = (1, 2, 3, 4)", {"resnet.remat": (1, 2, 3, 4)}, 1),
    ("half the images a device (twice the devices, or half the batch)", {}, 2),
    ("a quarter of the images a device (four times the devices, or a quarter of the batch)", {}, 4),
)


def _suggestion(
    lower_for: Callable[[int], _Step], topology: Topology, batch: int, compiler: _Compiler
) -> str | None:
    """Tries remedies, and returns the first that lets the step fit; None if none does."""
    for words, bindings, fewer in _REMEDIES:
        if batch // fewer < topology.num_devices or batch % (fewer * topology.num_devices):
            continue
        with _bound({**bindings, "pretrain.global_batch_size": batch // fewer}):
            if _compile_step(lower_for, topology, compiler)["fits"]:
                return words
    return None


@contextlib.contextmanager
def _bound(bindings: dict[str, Any]) -> Iterator[None]:
    before = gin.config_str()
    with gin.unlock_config():
        for name, value in bindings.items():
            gin.bind_parameter(name, value)
        try:
            yield
        finally:
            gin.clear_config()
            gin.parse_config(before)
