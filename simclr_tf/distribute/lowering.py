"""Lowers the program that one replica of many runs to StableHLO, without having the replicas.

`LoweringStrategy(R)` stands in for `TPUStrategy` while a replica function is traced: the same
function, models and optimizer run under TensorFlow's own replica context for TPUs, and XLA's
all-reduce over R replicas computes sums across them. It replaces `TPUExtended` and `tpu.replicate`;
like them it traces the function once, for all replicas. `tests/distribute/test_lowering.py`
compares their results one by one. TPUStrategy's work outside the function (feeding it, and placing
a copy of each variable on every core) has no counterpart here.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.distribute import distribute_lib, one_device_strategy, tpu_strategy

from simclr_tf.errors import RequestError


class LoweringStrategy(distribute_lib.Strategy):
    """Traces replica functions for `num_replicas` replicas; `lower` makes programs of them.

    Args:
      num_replicas: the number of replicas.
      values: whether variables have their initial values. Lowering needs shapes alone, and without
        values the weights of a wide network take no memory. Scalars always have their values.
    """

    def __init__(self, num_replicas: int, values: bool = True):
        super().__init__(_Extended(self, num_replicas, values))


class _Extended(one_device_strategy.OneDeviceExtended):
    def __init__(self, strategy: tf.distribute.Strategy, num_replicas: int, values: bool):
        super().__init__(strategy, "/device:CPU:0")
        self._count = num_replicas
        self._values = values
        self._require_static_shapes = True

    def _create_variable(self, next_creator, **kwargs):
        if not self._values:
            kwargs["initial_value"] = _untouched(kwargs["initial_value"])
        return super()._create_variable(next_creator, **kwargs)

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._count

    def _call_for_each_replica(self, fn, args, kwargs):
        with tpu_strategy._TPUReplicaContext(self._container_strategy(), xla.replica_id()):
            return fn(*args, **kwargs)

    def _reduce_to(self, reduce_op, value, destinations, options):
        if reduce_op == tf.distribute.ReduceOp.MEAN:  # divide before the sum, as TPUExtended does
            value = tf.math.scalar_mul(1.0 / self._count, value)
        everyone = [list(range(self._count))]
        return gen_xla_ops.xla_all_reduce(
            value, group_assignment=everyone, reduce_op="Add", mode="CrossReplica"
        )


def _untouched(initial_value: Any) -> Any:
    """Returns a tensor of the same shape and dtype, never written, so that it takes no memory."""
    if not callable(initial_value):
        return initial_value
    with tf.Graph().as_default():  # computes nothing
        value = tf.convert_to_tensor(initial_value())
    if not value.shape.rank:
        return initial_value
    return tf.raw_ops.Empty(shape=value.shape, dtype=value.dtype, init=False)


def traced_once(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether one trace stands for all replicas, and XLA compiles it, as on TPUs."""
    return isinstance(strategy, (tf.distribute.TPUStrategy, LoweringStrategy))


@dataclasses.dataclass(frozen=True)
class Program:
    """The program of one replica.

    Its arguments are the function's tensors, then the values of `variables`; its results are the
    function's, then the new values of `updated`, which replace the old ones.

    Attributes:
      stablehlo: the program's text.
      variables: the variables that are read or written, in the order of the arguments.
      updated: the variables that are written, in the order of the results.
      results: the function's results, flat.
    """

    stablehlo: str
    variables: Sequence[tf.Variable]
    updated: Sequence[tf.Variable]
    results: Sequence[tf.TensorSpec]


def lower(strategy: LoweringStrategy, replica_fn: Callable[..., Any], *specs: Any) -> Program:
    """Lowers a replica function, whose variables must exist.

    Args:
      strategy: the strategy in whose scope the variables were created.
      replica_fn: the function that `strategy.run` would run.
      *specs: its arguments, as structures of tf.TensorSpec with static shapes.

    Raises:
      RequestError: the function holds ops that no TPU runs; the message lists all of them.
    """

    @tf.function(jit_compile=True, autograph=False)
    def run(*tensors):
        return strategy.run(replica_fn, args=tf.nest.pack_sequence_as(specs, tensors))

    flat_specs = tf.nest.flatten(specs)
    concrete = run.get_concrete_function(*flat_specs)
    _refuse(not_for_tpu(concrete.graph))
    try:
        text = run.experimental_get_compiler_ir(*flat_specs)(stage="stablehlo")
    except ValueError as error:
        without_kernel = _WITHOUT_KERNEL.findall(str(error))
        _refuse([f"{name} ({kind}) has no kernel of XLA." for kind, name in without_kernel])
        raise
    by_handle = {id(v.handle): v for v in concrete.graph.variables}
    variables = [by_handle[id(t)] for t in concrete.captured_inputs]
    first = len(concrete.inputs) - len(variables)
    return Program(
        stablehlo=_portable(text),
        variables=variables,
        updated=[variables[i - first] for i in _updated_arguments(text)],
        results=[tf.TensorSpec(t.shape, t.dtype) for t in concrete.outputs],
    )


# How TensorFlow names an op that XLA does not know: its type, and its name.
_WITHOUT_KERNEL = re.compile(r"No registered '(\w+)' OpKernel[^{]*\{\{node ([^}]+)\}\}")


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise RequestError(
            "The replica function must hold only ops of static shape that a TPU runs. Received:\n"
            + "\n".join(problems)
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
    """Lists a graph's ops, its functions' included, that a TPU cannot run without the host.

    These are host ops, strings, 64-bit floats, and shapes that are unknown at compilation.

    Returns:
      One line per op and fault: the op's name, type and fault.
    """
    return [
        f"{op.name} ({op.type}) {fault}."
        for part in (graph, *functions_in(graph).values())
        for op in part.get_operations()
        for fault in faults(op)
    ]


def faults(op: tf.Operation) -> list[str]:
    """Returns why a TPU cannot run an op without the host; an ordinary op has no fault."""
    if op.type == "Placeholder" and not op.outputs[0].consumers():
        return []  # a loop's condition takes all inputs of its body, with unknown shapes
    found = ["runs on the host"] if op.type in _HOST_OPS else []
    for tensor in op.outputs:
        if tensor.dtype in _HOST_TYPES:
            found.append(f"gives {tensor.dtype.name}")
        elif tensor.dtype != tf.resource and not tensor.shape.is_fully_defined():
            found.append(f"has the shape {tensor.shape}")
    return found


def functions_in(graph: tf.Graph) -> dict[str, tf.Graph]:
    """Returns the functions that a graph's ops may call, directly or indirectly, by name."""
    found: dict[str, tf.Graph] = {}
    graphs = [graph]
    for outer in graphs:  # grows in the loop
        for name, function in getattr(outer, "_functions", {}).items():
            if hasattr(function, "graph") and name not in found:
                found[name] = function.graph
                graphs.append(function.graph)
    return found


def _updated_arguments(text: str) -> list[int]:
    """Returns the numbers of the arguments that results replace, in the results' order."""
    attribute = text[text.index("module @") :].partition("\n")[0]
    pairs = re.findall(
        r"parameter_number = (\d+) : i64\}, output_index = array<i64(?:: (\d+))?>", attribute
    )
    return [int(argument) for argument, _ in sorted(pairs, key=lambda p: int(p[1] or 0))]


def _portable(text: str) -> str:
    """Rewrites the text for readers of StableHLO other than TensorFlow's.

    They do not know `mhlo.copy`, which is an identity, or boolean constants packed eight to a byte.
    """
    text = re.sub(
        r"mhlo\.copy (%\S+)(?: \{[^}]*\})? : (tensor<[^>]*>)",
        r"stablehlo.reshape \1 : (\2) -> \2",
        text,
    )
    return re.sub(r'dense<"0x([0-9A-F]+)"> : tensor<((?:\d+x)+)i1>', _spelled_out, text)


def _spelled_out(packed: re.Match) -> str:
    """Writes a constant of booleans value by value."""
    shape = [int(size) for size in packed[2].rstrip("x").split("x")]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed[1]), np.uint8), bitorder="little")
    values = bits[: np.prod(shape)].astype(bool).reshape(shape)
    return f"dense<{json.dumps(values.tolist())}> : tensor<{packed[2]}i1>"
