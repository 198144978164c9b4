"""Executes a lowered program on virtual XLA:CPU devices, one a replica.

    python virtual_replicas.py PROGRAM.mlir INPUTS.npz OUTPUTS.npz

INPUTS: `num_replicas`; `steps`; `updated`, the numbers of the variables that results replace;
`batch_S_I_R`, tensor I of replica R in step S; `variable_I`. OUTPUTS: `result_S_R`, the function's
result in step S on replica R, and `variable_S_I_R` after it.
"""

import os
import sys

import numpy as np


def main(program: str, inputs_file: str, outputs_file: str) -> None:
    inputs = np.load(inputs_file)
    count, steps = int(inputs["num_replicas"]), int(inputs["steps"])
    os.environ.update(
        JAX_PLATFORMS="cpu",
        JAX_ENABLE_X64="1",
        XLA_FLAGS=f"--xla_force_host_platform_device_count={count}",
    )
    import jax
    from jax._src.interpreters import mlir as jax_mlir
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("replica",))
    options = xla_client.CompileOptions()
    options.num_replicas = count
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(count).reshape(-1, 1))
    with jax_mlir.make_ir_context(), open(program) as file:
        module = ir.Module.parse(file.read())
        executable = devices[0].client.compile_and_load(
            module, xla_client.DeviceList(tuple(devices)), options
        )

    def on_devices(values, spec):
        shape = values[0].shape
        if spec == PartitionSpec("replica"):
            shape = (count * shape[0], *shape[1:])
        arrays = [jax.device_put(v, d) for v, d in zip(values, devices, strict=True)]
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, spec), arrays)

    number = sum(name.startswith("variable_") for name in inputs)
    variables = [[inputs[f"variable_{i}"]] * count for i in range(number)]
    outputs = {}
    for step in range(steps):
        tensors = sum(name.startswith(f"batch_{step}_") for name in inputs) // count
        batch = [[inputs[f"batch_{step}_{i}_{r}"] for r in range(count)] for i in range(tensors)]
        arguments = [on_devices(b, PartitionSpec("replica")) for b in batch]
        arguments += [on_devices(v, PartitionSpec()) for v in variables]
        results = executable.execute_sharded(arguments).disassemble_into_single_device_arrays()
        outputs |= {f"result_{step}_{r}": np.asarray(v) for r, v in enumerate(results[0])}
        for i, values in zip(inputs["updated"], results[1:], strict=True):
            variables[i] = [np.asarray(value) for value in values]
        for i, values in enumerate(variables):
            outputs |= {f"variable_{step}_{i}_{r}": value for r, value in enumerate(values)}
    np.savez(outputs_file, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
