"""`preflight`: whether a recipe compiles for a TPU, fits, and how long a step might take."""

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
# The images of a data set that is not here; their number decides the schedule alone.
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
    """Lowers the trainer's replica function, and compiles it by the TPU compiler, without a TPU.

    Args:
      context: what the command line says.
      pretrain: the job whose step is compiled, with all that the recipe binds.
      topologies: slices to compile for, such as `v3:8x8` or `v5e:4x4`.
      num_classes: of the online probe, where the data neither is here nor known by name.
      compiler_python: the interpreter of the environment that has jax and libtpu (`[preflight]`);
        by default this one.
      suggest: whether to try, where the step does not fit, what would make it fit.

    Returns:
      The numbers, which the command line writes into `results/preflight.json`.

    Raises:
      RequestError: a topology is not known, the recipe cannot be put together for it, the replica
        function holds what no TPU runs, or there is no compiler.
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
    """A lowered training step, and what it is asked to compute."""

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
    """Stands for the recipe's `data`: all that is said of it, and nothing of it opened."""

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
        """What the compiler says, and what it made of the program if that fits."""
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
    """Compiles a step, prints its row of the table, and returns what came of it."""
    step = step_for(topology.num_devices)
    gc.collect()  # of the models, whose weights the compiler could use the memory of
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
            result["flop"] = None  # of a loop the compiler counts one iteration
    print(row(result), flush=True)
    return result


def _estimates(step: _Step, analysis: Analysis, topology: Topology) -> dict[str, float | None]:
    """Cycles, seconds and utilization of a step; None where the compiler's text does not tell.

    Raises:
      RuntimeError: the model would compute faster than the chip can, so the estimate is wrong.
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
    """The first remedy that lets the step fit, found by trying; None if none does."""
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
