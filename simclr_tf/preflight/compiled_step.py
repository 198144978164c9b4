"""A training step compiled for a slice: its memory, time and collectives."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable

from simclr_tf import custom_gradients
from simclr_tf.preflight.analysis import Analysis
from simclr_tf.preflight.chips import Topology
from simclr_tf.preflight.table import row
from simclr_tf.preflight.tpu_compiler import TpuCompiler


@dataclasses.dataclass(frozen=True)
class LoweredStep:
    """A lowered training step, with its size per replica and its FLOP count."""

    stablehlo: str
    per_replica: int
    model_flop: int


def compile_step(
    step_for: Callable[[int], LoweredStep], topology: Topology, compiler: TpuCompiler
) -> dict:
    """Compiles a step, prints its row of the table, and returns its numbers."""
    with custom_gradients.forgotten():
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
            **estimates(step, analysis, topology),
            "collectives": analysis.collectives,
            "not_estimated": analysis.not_estimated,
            "unknown_loops": analysis.unknown_loops,
            "longest": analysis.fusions[:10],
        }
        if analysis.loops:
            result["flop"] = None  # the compiler counts only one iteration of a loop
    print(row(result), flush=True)
    return result


def estimates(step: LoweredStep, analysis: Analysis, topology: Topology) -> dict[str, float | None]:
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
