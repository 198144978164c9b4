"""The program that one replica of many runs, written out as StableHLO without having the replicas.

`LoweringStrategy(R)` stands in for `TPUStrategy` while a replica function is traced: the same
function, models and optimizer, and collectives that become XLA's all-reduce over R replicas. It
replaces `TPUExtended`, `_TPUReplicaContext` and `tpu.replicate`; like them it traces the function
once, for all replicas, gathers by a one-hot mask and an all-reduce, and updates every variable once
in the trace. What TPUStrategy does outside the function (feeding it, and placing a copy of each
variable on every core) has no counterpart here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.distribute import distribute_lib, one_device_strategy

from simclr_tf.errors import RequestError


class LoweringStrategy(distribute_lib.Strategy):
    """Traces replica functions for `num_replicas` replicas; `lower` makes programs of them."""

    def __init__(self, num_replicas: int):
        super().__init__(_Extended(self, num_replicas))


class _Extended(one_device_strategy.OneDeviceExtended):
    def __init__(self, strategy: tf.distribute.Strategy, num_replicas: int):
        super().__init__(strategy, "/device:CPU:0")
        self._count = num_replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._count

    def _use_merge_call(self) -> bool:
        return False  # TPUStrategy's merge calls run inline in its single trace, as direct ones do

    def _call_for_each_replica(self, fn, args, kwargs):
        with _ReplicaContext(self._container_strategy(), replica_id_in_sync_group=0):
            return fn(*args, **kwargs)


class _ReplicaContext(distribute_lib.ReplicaContext):
    @property
    def replica_id_in_sync_group(self) -> tf.Tensor:
        return tf.cast(xla.replica_id(), tf.int32)

    @property
    def num_replicas_in_sync(self) -> int:
        return self.strategy.num_replicas_in_sync

    def all_reduce(self, reduce_op, value, options=None):
        mean = reduce_op == tf.distribute.ReduceOp.MEAN
        count = self.num_replicas_in_sync

        def reduce(x: tf.Tensor) -> tf.Tensor:
            total = _cross_replica_sum(x, count)
            return total / count if mean else total

        return tf.nest.map_structure(reduce, value)

    def all_gather(self, value, axis, options=None):
        count = self.num_replicas_in_sync

        def gather(x: tf.Tensor) -> tf.Tensor:
            mask = tf.one_hot(self.replica_id_in_sync_group, count, dtype=x.dtype)
            mask = tf.reshape(mask, [1] * axis + [count] + [1] * (x.shape.rank - axis))
            shape = x.shape.as_list()
            shape[axis] *= count
            blocks = self.all_reduce(tf.distribute.ReduceOp.SUM, tf.expand_dims(x, axis) * mask)
            return tf.reshape(blocks, shape)

        return tf.nest.map_structure(gather, value)


def _cross_replica_sum(x: tf.Tensor, count: int) -> tf.Tensor:
    def total(x: tf.Tensor) -> tf.Tensor:
        return gen_xla_ops.xla_all_reduce(
            x, group_assignment=[list(range(count))], reduce_op="Add", mode="CrossReplica"
        )

    # The gradient of a sum over replicas is a sum over replicas.
    return tf.custom_gradient(lambda x: (total(x), total))(x)


@dataclasses.dataclass(frozen=True)
class Program:
    """What one replica runs.

    Its arguments are the function's tensors, then the values of `variables`; its results are the
    function's, then the new values of `updated`, which take the place of the old ones.

    Attributes:
      stablehlo: the program's text.
      variables: variables that are read or written, in the order of the arguments.
      updated: those of them that are written, in the order of the results.
    """

    stablehlo: str
    variables: Sequence[tf.Variable]
    updated: Sequence[tf.Variable]


def lower(strategy: LoweringStrategy, replica_fn: Callable[..., Any], *specs: Any) -> Program:
    """Lowers a replica function, whose variables must exist.

    Args:
      strategy: under whose scope the variables were created.
      replica_fn: what `strategy.run` would be given.
      *specs: its arguments, as structures of tf.TensorSpec with static shapes.

    Raises:
      RequestError: the function holds what no TPU runs; the message lists all of it.
    """

    @tf.function(jit_compile=True, autograph=False)
    def run(*tensors):
        return strategy.run(replica_fn, args=tf.nest.pack_sequence_as(specs, tensors))

    flat_specs = tf.nest.flatten(specs)
    concrete = run.get_concrete_function(*flat_specs)
    problems = not_for_tpu(concrete.graph)
    if problems:
        raise RequestError(
            "The replica function must hold only ops of static shape that a TPU runs. Received:\n"
            + "\n".join(problems)
        )
    text = run.experimental_get_compiler_ir(*flat_specs)(stage="stablehlo")
    by_handle = {id(v.handle): v for v in concrete.graph.variables}
    variables = [by_handle[id(t)] for t in concrete.captured_inputs]
    first = len(concrete.inputs) - len(variables)
    return Program(
        stablehlo=_without_mhlo(text),
        variables=variables,
        updated=[variables[i - first] for i in _updated_arguments(text)],
    )


_HOST_TYPES = (tf.string, tf.variant, tf.float64, tf.complex128)
_HOST_OPS = (
    "PyFunc",
    "EagerPyFunc",
    "PyFuncStateless",
    "Print",
    "PrintV2",
    "Assert",
    "HostCompute",
)


def not_for_tpu(graph: tf.Graph) -> list[str]:
    """Ops of a graph, functions in it included, that a TPU cannot run or runs by the host's help.

    These are host ops, strings, 64-bit floats, and shapes that are not known while compiling.

    Returns:
      One line for each: the op's name, type and fault.
    """
    return [
        f"{op.name} ({op.type}) {fault}."
        for part in (graph, *functions_in(graph).values())
        for op in part.get_operations()
        for fault in faults(op)
    ]


def faults(op: tf.Operation) -> list[str]:
    """Why a TPU cannot run an op, or runs it by the host's help; an ordinary op has no fault."""
    if op.type == "Placeholder" and not op.outputs[0].consumers():
        return []  # a loop's condition takes, of unknown shape, all that its body does
    found = ["runs on the host"] if op.type in _HOST_OPS else []
    for tensor in op.outputs:
        if tensor.dtype in _HOST_TYPES:
            found.append(f"gives {tensor.dtype.name}")
        elif tensor.dtype != tf.resource and not tensor.shape.is_fully_defined():
            found.append(f"has the shape {tensor.shape}")
    return found


def functions_in(graph: tf.Graph) -> dict[str, tf.Graph]:
    """The functions that a graph's ops may call, and those that these may call, by their names."""
    found: dict[str, tf.Graph] = {}
    graphs = [graph]
    for outer in graphs:  # which grows
        for name, function in getattr(outer, "_functions", {}).items():
            if hasattr(function, "graph") and name not in found:
                found[name] = function.graph
                graphs.append(function.graph)
    return found


def _updated_arguments(text: str) -> list[int]:
    """Numbers of the arguments whose place a result takes, in the results' order."""
    attribute = text[text.index("module @") :].partition("\n")[0]
    pairs = re.findall(
        r"parameter_number = (\d+) : i64\}, output_index = array<i64(?:: (\d+))?>", attribute
    )
    return [int(argument) for argument, _ in sorted(pairs, key=lambda p: int(p[1] or 0))]


def _without_mhlo(text: str) -> str:
    """The text with `mhlo.copy`, which StableHLO does not know, as an identity."""
    return re.sub(
        r"mhlo\.copy (%\S+)(?: \{[^}]*\})? : (tensor<[^>]*>)",
        r"stablehlo.reshape \1 : (\2) -> \2",
        text,
    )
