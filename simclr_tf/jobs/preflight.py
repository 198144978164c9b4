"""`preflight`: whether a recipe compiles for a TPU and fits, and how long a step might take."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.data.source import Source
from simclr_tf.data.tfds_source import class_names_of
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.distribute.xla import check_host_compiles
from simclr_tf.evaluation.result import Result
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.preflight.chips import Topology, parse_topology
from simclr_tf.preflight.compiled_step import LoweredStep, compile_step
from simclr_tf.preflight.flop import training_flop
from simclr_tf.preflight.table import HEADER, details
from simclr_tf.preflight.tpu_compiler import TpuCompiler
from simclr_tf.training.lowered_step import lower_step, per_replica
from simclr_tf.training.run import Run

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
    check_host_compiles("preflight", "cpu,preflight")
    parsed = [parse_topology(name) for name in topologies]
    compiler = TpuCompiler(compiler_python or sys.executable)

    def lower_for(num_devices: int) -> LoweredStep:
        run = pretrain(
            context,
            data=_OnPaper(num_classes),
            strategy=lambda **_: LoweringStrategy(num_devices, values=False),
        )
        return _lower_step(run)

    lowered = functools.cache(lower_for)  # the program does not depend on the chip
    results = []
    print(HEADER, flush=True)
    for topology in parsed:
        result = compile_step(lowered, topology, compiler)
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


def _lower_step(run: Run) -> LoweredStep:
    replicas = run.plan.num_replicas
    return LoweredStep(
        stablehlo=lower_step(run, run.pipeline).stablehlo,
        per_replica=per_replica(run),
        model_flop=training_flop(run.method, run.plan.global_batch_size) // replicas,
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


_REMEDIES = (
    ("resnet.remat = (1, 2)", {"resnet.remat": (1, 2)}, 1),
    ("resnet.remat = (1, 2, 3, 4)", {"resnet.remat": (1, 2, 3, 4)}, 1),
    ("half the images a device (twice the devices, or half the batch)", {}, 2),
    ("a quarter of the images a device (four times the devices, or a quarter of the batch)", {}, 4),
)


def _suggestion(
    lower_for: Callable[[int], LoweredStep], topology: Topology, batch: int, compiler: TpuCompiler
) -> str | None:
    """Tries remedies, and returns the first that lets the step fit; None if none does."""
    for words, bindings, fewer in _REMEDIES:
        if batch // fewer < topology.num_devices or batch % (fewer * topology.num_devices):
            continue
        with _bound({**bindings, "pretrain.global_batch_size": batch // fewer}):
            if compile_step(lower_for, topology, compiler)["fits"]:
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
