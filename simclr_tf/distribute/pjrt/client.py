"""The devices of jax's PJRT client: programs compiled for them, and arrays on them.

Needs no TensorFlow (`tools/pjrt_smoke.py` uses it without).

A PJRT plug-in brings the devices: libtpu TPUs, jax's CUDA plug-in NVIDIA GPUs, jaxlib itself the
CPU. jax has no public way to run a given StableHLO program, so this file makes calls that are not
public, as `preflight/compiler.py` does in an environment of its own. `environment.SUPPORTED` says
for which versions they are known to work.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax._src import compiler
from jax._src.interpreters import mlir as jax_mlir
from jax._src.lib import xla_client
from jax._src.lib.mlir import ir
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simclr_tf.distribute import environment
from simclr_tf.errors import RequestError

Spec = tuple[tuple[int, ...], np.dtype]


class Devices:
    """Some devices of one kind, each of which is a replica."""

    def __init__(self, devices: Sequence[jax.Device]):
        self._devices = list(devices)
        mesh = Mesh(np.array(self._devices), ("replica",))
        self._parts = NamedSharding(mesh, PartitionSpec("replica"))
        self._copies = NamedSharding(mesh, PartitionSpec())

    @property
    def count(self) -> int:
        return len(self._devices)

    @property
    def platform(self) -> str:
        """`cpu`, `gpu` or `tpu`."""
        return self._devices[0].platform

    @property
    def compute_capability(self) -> tuple[int, ...] | None:
        """The compute capability of NVIDIA GPUs; None of other devices."""
        found = str(getattr(self._devices[0], "compute_capability", ""))
        return tuple(map(int, found.split("."))) if re.fullmatch(r"\d+\.\d+", found) else None

    def words(self) -> str:
        """Describes the devices, for the plan of a run."""
        kind = self._devices[0].device_kind
        return f"PJRT ({self.count} on {kind}), by jax {jax.__version__}"

    def peak_bytes(self) -> int | None:
        """Returns the most memory that was in use on the first device, if it counts that."""
        counted = self._devices[0].memory_stats() or {}
        return counted.get("peak_bytes_in_use")

    def compile(self, stablehlo: str, results: Sequence[Spec]) -> Executable:
        """Compiles the program of one replica, or takes it from the cache on disk.

        Args:
          stablehlo: the program's text.
          results: shape and dtype of each of its results.
        """
        options = xla_client.CompileOptions()
        options.num_replicas = self.count
        numbers = np.array([device.id for device in self._devices]).reshape(-1, 1)
        options.device_assignment = xla_client.DeviceAssignment.create(numbers)
        with jax_mlir.make_ir_context():
            loaded = compiler.compile_or_get_cached(
                self._devices[0].client,
                ir.Module.parse(stablehlo),
                np.array(self._devices).reshape(-1, 1),
                options,
                [],
                xla_client.DeviceList(tuple(self._devices)),
            )
        return Executable(loaded, [self._handler(spec) for spec in results])

    def _handler(self, spec: Spec):
        """Returns what makes an array of a result's copies, in much less time than `copies`."""
        return xla_client.array_result_handler(
            jax.core.ShapedArray(*spec), self._copies, committed=True, _skip_checks=True
        )

    def parts(self, values: Sequence[np.ndarray]) -> jax.Array:
        """Places value r on device r; may share the memory of `values`."""
        placed = [jax.device_put(v, d) for v, d in zip(values, self._devices, strict=True)]
        shape = (self.count * values[0].shape[0], *values[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self._parts, placed)

    def copies(self, value: np.ndarray) -> jax.Array:
        """Places a copy on each device, which a program may write to."""
        placed = [jax.device_put(value, d, may_alias=False) for d in self._devices]
        return jax.make_array_from_single_device_arrays(value.shape, self._copies, placed)


class Executable:
    """A program on the devices.

    Args:
      loaded: the compiled program.
      handlers: what makes an array of the copies of each result.
    """

    def __init__(self, loaded, handlers: Sequence):
        self._loaded = loaded
        self._handlers = list(handlers)

    def __call__(self, arguments: Sequence[jax.Array]) -> list[jax.Array]:
        """Starts the program, and returns its results, which may not be computed yet."""
        return self._loaded.execute_sharded(arguments).consume_with_handlers(self._handlers)

    def device_bytes(self) -> int:
        """Returns the memory that one device needs: arguments, results, temporaries, code."""
        memory = self._loaded.get_compiled_memory_stats()
        return (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.generated_code_size_in_bytes
        )


def value_of(copies: jax.Array) -> np.ndarray:
    """Returns the value of an array of which each device has a copy."""
    return np.asarray(copies.addressable_data(0))


def start(cpu_replicas: int) -> Devices:
    """Starts jax's client, and returns its devices.

    Args:
      cpu_replicas: how many virtual devices of the CPU are taken. More than one are taken beside an
        accelerator too, one only where there is none.

    Raises:
      RequestError: jax does not start, or has started with fewer devices; an accelerator is
        present, but unusable; there are several hosts.
    """
    jax.config.update("jax_enable_x64", True)  # or 64-bit counters would be cut to 32 bits
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
    if cpu_replicas > 1:
        jax.config.update("jax_platforms", "cpu")
        with contextlib.suppress(RuntimeError):  # once jax has started, which the count detects
            jax.config.update("jax_num_cpu_devices", cpu_replicas)
    try:
        found = jax.devices()
    except RuntimeError as error:
        raise RequestError(
            f"jax must be able to start its devices. Received: {error} Mend that, or set "
            "JAX_PLATFORMS to what this host has, such as cpu."
        ) from error
    if jax.process_count() > 1:
        raise RequestError(
            "--runtime=pjrt trains on one host. Received: devices of "
            f"{jax.process_count()} hosts. Start it on a host whose devices are all there is."
        )
    if found[0].platform != "cpu":
        return Devices(found)
    if cpu_replicas == 1:
        _check_no_accelerator()
    if len(found) < cpu_replicas:
        raise RequestError(
            f"strategy.cpu_replicas must be set before jax starts. Received: {cpu_replicas}, but "
            f"this process has {len(found)}."
        )
    return Devices(found[:cpu_replicas])


def _cache_folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base, "simclr_tf", "programs")


def _check_no_accelerator() -> None:
    """Raises RequestError beside an accelerator, unless the environment asks for the CPU."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    card = "a TPU" if environment.has_tpu_devices() else None
    card = card or (None if hidden else environment.nvidia_card())
    if card:
        raise RequestError(
            f"jax must see the accelerator of this host. Received: {card}, but only the CPU in jax "
            f"{jax.__version__}. Install jax's plug-in for it, pip install 'jax[tpu]' or "
            "'jax[cuda12]' of this version, or set JAX_PLATFORMS=cpu to compute on the CPU."
        )
