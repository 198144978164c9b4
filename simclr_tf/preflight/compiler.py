"""Compiles a lowered program with the TPU compiler of the libtpu wheel; needs no TPU.

    python compiler.py PROGRAM.mlir TOPOLOGY OUTPUT.json OUTPUT.hlo

It runs as a script of its own, and imports nothing of this package: jax and libtpu may live in
another environment, since the libtpu that compiles here is newer than the one that TensorFlow can
train with. It writes the compiler's result as JSON, and the compiled program as text.
"""

from __future__ import annotations

import json
import os
import sys
import time

# There is no TPU, and no metadata server to ask for one; other processes may compile meanwhile.
os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1", JAX_PLATFORMS="cpu")


def compile_program(text: str, topology_name: str) -> tuple[dict, str]:
    """Compiles for every device of a topology.

    Returns:
      The compiler's result, bytes and seconds, and the compiled program; for a program that does
      not fit into the memory, its message and an empty text.
    """
    import jax
    import libtpu
    import numpy as np
    from jax._src.interpreters import mlir as jax_mlir  # no public way to compile a given program
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir
    from jax.experimental import topologies

    # Makes both cores of a v4 chip one device, as those of v5p are by default.
    config = {"chip_config_name": "megacore"} if topology_name.startswith("v4:") else {}
    topology = topologies.get_topology_desc(platform="tpu", topology_name=topology_name, **config)
    devices = topology.devices
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = len(devices), 1
    options.device_assignment = xla_client.DeviceAssignment.create(
        np.arange(len(devices)).reshape(-1, 1)
    )
    said = {
        "num_devices": len(devices),
        "versions": {"jax": jax.__version__, "libtpu": libtpu.__version__},
    }
    start = time.perf_counter()
    try:
        with jax_mlir.make_ir_context():
            module = ir.Module.parse(text)
            executable = devices[0].client.compile(
                module, xla_client.DeviceList(tuple(devices)), options
            )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return said | {"out_of_memory": str(error)}, ""
    said |= {"seconds": time.perf_counter() - start, **_needs(executable)}
    return said, executable.hlo_modules()[0].to_string()


def _needs(executable) -> dict[str, float]:
    """Returns the memory, in bytes, and the floating-point operations of a compiled program."""
    memory = executable.get_compiled_memory_stats()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flop": executable.cost_analysis()["flops"],
    }


if __name__ == "__main__":
    program, topology_flag, json_file, hlo_file = sys.argv[1:]
    with open(program) as file:
        what_it_says, hlo = compile_program(file.read(), topology_flag)
    with open(hlo_file, "w") as file:
        file.write(hlo)
    with open(json_file, "w") as file:
        json.dump(what_it_says, file)
