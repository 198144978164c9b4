"""Chooses this machine's tf.distribute strategy, and divides a global batch over replicas."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib

import gin
import tensorflow as tf

from simclr_tf.distribute import tpu_runtime
from simclr_tf.distribute.environment import tpu_name
from simclr_tf.distribute.gpu import check_gpus_are_seen
from simclr_tf.distribute.lowering import traced_once
from simclr_tf.distribute.pjrt.strategy import PjrtStrategy, pjrt_strategy
from simclr_tf.distribute.tpu import tpu_strategy
from simclr_tf.errors import RequestError

MAX_CPU_REPLICAS = 1024


@dataclasses.dataclass(frozen=True)
class HostSlice:
    """A host's part of every global batch.

    Attributes:
      index: this host's number, from 0.
      num_hosts: the number of hosts that read data.
      replicas: the number of replicas that this host feeds.
      per_replica: B, images per replica and step.
    """

    index: int
    num_hosts: int
    replicas: int
    per_replica: int

    @property
    def per_host(self) -> int:
        return self.replicas * self.per_replica

    @property
    def num_replicas(self) -> int:
        return self.num_hosts * self.replicas

    @property
    def global_batch(self) -> int:
        return self.num_hosts * self.per_host


def host_slice(context: tf.distribute.InputContext, global_batch_size: int) -> HostSlice:
    """Returns the part of the global batch that the pipeline of `context` reads."""
    num_hosts = max(context.num_input_pipelines, 1)
    replicas = context.num_replicas_in_sync // num_hosts
    return HostSlice(
        index=context.input_pipeline_id,
        num_hosts=num_hosts,
        replicas=replicas,
        per_replica=global_batch_size // context.num_replicas_in_sync,
    )


def check_global_batch(
    global_batch_size: int,
    num_replicas: int,
    num_examples: int,
    name: str = "global_batch_size",
    left_out: str = "",
    advice: str = "",
) -> None:
    """Raises RequestError unless the batch divides over the replicas and the data can fill it.

    Args:
      global_batch_size: images per step over all replicas.
      num_replicas: the number of replicas.
      num_examples: the number of images of the data.
      name: name of the parameter that a person binds.
      left_out: what the data hold beside these images, in words.
      advice: what to do if there are too few images; by default to bind the largest valid batch.
    """
    check_divides(name, global_batch_size, num_replicas)
    if global_batch_size > num_examples:
        more = f" Left out: {left_out}." if left_out else ""
        largest = num_examples // num_replicas * num_replicas
        if not largest:
            raise RequestError(
                "There must be an image for each replica. Received: "
                f"num_replicas={num_replicas}, {num_examples} images. Use fewer replicas.{more}"
            )
        advice = advice or f"Add --gin_bindings='{name} = {largest}'."
        raise RequestError(
            f"{name} must not exceed the number of images. "
            f"Received: global_batch_size={global_batch_size}, {num_examples} "
            f"images. Largest valid: {largest}. {advice}{more}"
        )


def check_divides(name: str, global_batch_size: int, num_replicas: int) -> None:
    """Raises RequestError unless the batch, which recipes call `name`, divides over replicas."""
    if global_batch_size < 1 or global_batch_size % num_replicas:
        below = max(global_batch_size, 0) // num_replicas * num_replicas
        nearest = [b for b in (below, below + num_replicas) if b >= num_replicas]
        raise RequestError(
            f"{name} must be divisible by the number of replicas. Received: "
            f"global_batch_size={global_batch_size}, num_replicas={num_replicas}. Nearest valid: "
            f"{', '.join(map(str, nearest))}."
        )


def check_microbatch(
    microbatch_size: int, global_batch_size: int, num_replicas: int, name: str = "microbatch_size"
) -> None:
    """Raises RequestError unless micro-batches divide the batch, and divide over the replicas.

    Args:
      microbatch_size: images, over all replicas, that are processed at a time.
      global_batch_size: images per step over all replicas.
      num_replicas: the number of replicas.
      name: name of the parameter that a person binds.
    """
    valid = [
        size
        for size in range(num_replicas, global_batch_size + 1, num_replicas)
        if global_batch_size % size == 0
    ]
    if microbatch_size not in valid:
        below = [size for size in valid if size < microbatch_size]
        above = [size for size in valid if size > microbatch_size]
        raise RequestError(
            f"{name} must divide the global batch, and be divisible by the number of replicas. "
            f"Received: microbatch_size={microbatch_size}, "
            f"global_batch_size={global_batch_size}, num_replicas={num_replicas}. Nearest valid: "
            f"{', '.join(map(str, below[-1:] + above[:1]))}."
        )


@gin.configurable("strategy")
def create_strategy(
    cpu_replicas: int = 1, *, tpu: str, runtime: str = "tensorflow"
) -> tf.distribute.Strategy:
    """Picks the strategy and initializes its devices. Call it before any other TensorFlow op.

    In this order: the TPU that is requested or found; the workers of TF_CONFIG; all local GPUs;
    `cpu_replicas` replicas on this machine's CPU, to try out several replicas; one device. The
    runtime `pjrt` takes all accelerators that jax finds, else `cpu_replicas` devices of the CPU.

    Args:
      cpu_replicas: replicas to simulate on the CPU.
      tpu: `auto`, `local`, `none` or the name of a TPU. A TPU or an NVIDIA card that is present or
        requested, but unusable, is an error: nothing falls back to the CPU by itself.
      runtime: `tensorflow`, or `pjrt` for jax's client, which knows TPUs by itself.

    Raises:
      RequestError: the TPU, the GPUs or the CPU replicas are unusable.
    """
    if cpu_replicas > MAX_CPU_REPLICAS:
        raise RequestError(
            f"strategy.cpu_replicas must be at most {MAX_CPU_REPLICAS}. Received: {cpu_replicas}."
        )
    if runtime == "pjrt":
        if num_workers() > 1:
            raise RequestError(
                "--runtime=pjrt trains on one host. Received: TF_CONFIG with "
                f"{num_workers()} workers. Unset it, or leave --runtime out."
            )
        return pjrt_strategy(cpu_replicas)
    name = tpu_name(tpu)
    if name != "none":
        return tpu_strategy(name)
    if cpu_replicas == 1:
        check_gpus_are_seen()
    if num_workers() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU") if cpu_replicas == 1 else []
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if cpu_replicas > 1:
        return simulated_replicas(cpu_replicas)
    return tf.distribute.get_strategy()


def num_workers() -> int:
    """Returns the number of processes that train together, by TF_CONFIG; 0 without it."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return sum(len(cluster.get(kind, [])) for kind in ("chief", "worker"))


def refuse_workers() -> None:
    """Raises RequestError if TF_CONFIG names several processes, for which this one would wait."""
    workers = num_workers()
    if workers > 1:
        raise RequestError(
            "Evaluations run in one process, on all of its devices. Received: TF_CONFIG with "
            f"{workers} workers. Unset it, and run this job on one host."
        )


def of_this_process(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    """Returns the strategy, or one device if its replicas are not devices of TensorFlow here."""
    elsewhere = isinstance(strategy, (tf.distribute.MultiWorkerMirroredStrategy, PjrtStrategy))
    return tf.distribute.get_strategy() if elsewhere else strategy


def describe(strategy: tf.distribute.Strategy) -> str:
    """Describes the strategy, for the plan of a run."""
    if isinstance(strategy, PjrtStrategy):
        return strategy.devices.words()
    kind = type(strategy).__name__
    if not tf.distribute.has_strategy() and strategy.num_replicas_in_sync == 1:
        kind = "one device"
    devices = sorted({d.device_type for d in tf.config.list_logical_devices()} - {"TPU_SYSTEM"})
    told = f"{kind} ({strategy.num_replicas_in_sync} on {devices[-1]})"
    if isinstance(strategy, tf.distribute.TPUStrategy):
        name = strategy.cluster_resolver.master() or "local"
        told += f", runtime: {tpu_runtime.loaded(name)}"
    return told


def describe_computation(strategy: tf.distribute.Strategy) -> str:
    """Describes how the replicas compute, for the plan of a run.

    On TPUs XLA compiles a step as a whole. Elsewhere it does not: on CPUs a compiled step takes
    longer (docs/measurements.md), and on GPUs that was not measured. There batch normalization
    uses TensorFlow's fused kernels, see `SyncBatchNormalization`.
    """
    if traced_once(strategy):
        return "batch normalization over all replicas, compiled by XLA"
    over = " over all replicas" if strategy.num_replicas_in_sync > 1 else ""
    return f"fused batch normalization{over}, not compiled by XLA"


def fast_precision(strategy: tf.distribute.Strategy) -> str:
    """Returns the Keras dtype policy in which the strategy's devices compute fastest.

    `mixed_bfloat16` on TPUs, on GPUs from compute capability 8.0, and on CPUs with bfloat16
    instructions; `mixed_float16` on GPUs from 7.0, whose tensor cores lack bfloat16. Elsewhere
    both are emulated, and `float32` is faster. The weakest of several GPUs decides.
    """
    if isinstance(strategy, PjrtStrategy):
        on_tpu = strategy.devices.platform == "tpu"
        weakest = strategy.devices.compute_capability
    else:
        on_tpu = traced_once(strategy)
        gpus = map(
            tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU")
        )
        weakest = min((gpu.get("compute_capability", (0, 0)) for gpu in gpus), default=None)
    if weakest is not None:
        half = "mixed_bfloat16" if weakest >= (8, 0) else "mixed_float16"
        return half if weakest >= (7, 0) else "float32"
    fast = on_tpu or {"avx512_bf16", "amx_bf16"} & _cpu_flags()
    return "mixed_bfloat16" if fast else "float32"


def _cpu_flags() -> set[str]:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def simulated_replicas(count: int) -> tf.distribute.Strategy:
    """Returns a strategy with replicas on `count` logical devices of this machine's CPU.

    On logical CPUs TensorFlow's collective ops allow one strategy per process; a reduction to one
    device, which gives the same sums, allows any number.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
        # Once TensorFlow has started this has no effect, which the count below detects.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
    found = len(tf.config.list_logical_devices("CPU"))
    if found < count:
        raise RequestError(
            f"strategy.cpu_replicas must be set before TensorFlow starts. Received: {count}, "
            f"but this process has {found}."
        )
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
