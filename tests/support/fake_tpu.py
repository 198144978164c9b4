"""The real TPUStrategy over cores that do not exist: all of it but the execution of its programs.

TPUStrategy asks its resolver which devices there are, and the one here makes them up; TensorFlow
then places their copies of the variables on the CPU. So the strategy, its variables and the tracing
are TensorFlow's own. It works with the stock wheel too; tensorflow-tpu looks for a TPU unless
TPU_LOAD_LIBRARY=0 is set before it is imported.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.tpu import tpu_system_metadata

from simclr_tf.distribute.lowering import LoweringStrategy, faults, functions_in

__all__ = ["Resolver", "fake_tpu_strategy", "faults", "ops_on_tpu", "program", "trace"]

HOST = "/job:localhost/replica:0/task:0"
_Device = collections.namedtuple("_Device", "name device_type")


class Resolver(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Says that this host, or each of the `hosts` of a slice, has `cores` TPU cores."""

    def __init__(self, cores: int, tpu: str = "local", hosts: Sequence[str] = (HOST,)):
        super().__init__(tpu=tpu)
        names = ["CPU:0", *(f"TPU:{i}" for i in range(cores))]
        self._metadata = tpu_system_metadata.TPUSystemMetadata(
            num_cores=cores * len(hosts),
            num_hosts=len(hosts),
            num_of_cores_per_host=cores,
            topology=None,
            devices=[_Device(f"{h}/device:{n}", n.split(":")[0]) for h in hosts for n in names],
        )

    def get_tpu_system_metadata(self):
        return self._metadata


def fake_tpu_strategy(cores: int) -> tf.distribute.TPUStrategy:
    """The strategy of a TPU host with `cores` cores, which runs nothing."""
    return tf.distribute.TPUStrategy(Resolver(cores))


def trace(
    strategy: tf.distribute.Strategy, replica_fn: Callable[..., Any], *specs: Any
) -> tf.Graph:
    """The graph of `strategy.run`, in which every replica is given the same arguments.

    Args:
      strategy: a TPUStrategy or a LoweringStrategy, under whose scope the function's variables were
        created.
      replica_fn: the function, which is traced and not run.
      *specs: its arguments, as structures of tf.TensorSpec.
    """

    @tf.function(autograph=False, jit_compile=isinstance(strategy, LoweringStrategy) or None)
    def run(*args):  # no lambda: TPUStrategy makes a scope of its name
        return strategy.run(replica_fn, args=args)

    return run.get_concrete_function(*specs).graph


def program(
    strategy: tf.distribute.Strategy, replica_fn: Callable[..., Any], *specs: Any
) -> list[tf.Operation]:
    """The ops of the program that `trace` is of, which every replica runs."""
    graph = trace(strategy, replica_fn, *specs)
    if not isinstance(strategy, LoweringStrategy):
        return ops_on_tpu(graph)
    return [op for g in (graph, *functions_in(graph).values()) for op in g.get_operations()]


def ops_on_tpu(graph: tf.Graph) -> list[tf.Operation]:
    """The ops that TPUStrategy replicates, and those of the functions that these call."""
    graphs = functions_in(graph)
    every = [op for g in (graph, *graphs.values()) for op in g.get_operations()]
    found = [op for op in every if {"_tpu_replicate", "_replication_info"} & set(op.node_def.attr)]
    called = set()
    for op in found:  # which grows
        for value in op.node_def.attr.values():
            for name in {f.name for f in (value.func, *value.list.func)} & set(graphs) - called:
                called.add(name)
                found += graphs[name].get_operations()
    return found
