"""If this breaks, what a run says of its steps and of waiting for data is not so on a device."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.training.loop import LoopResult, make_loop

HOST = "/device:CPU:0"


def strategy_of(replicas: int | None) -> tf.distribute.Strategy:
    return simulated_replicas(replicas) if replicas else tf.distribute.get_strategy()


def graphs(strategy: tf.distribute.Strategy) -> list[tf.Graph]:
    """The loop's graph and those of the functions in it; ops of replicas have "replica" in them."""

    def step(batch):
        with tf.name_scope("replica"):
            return batch["x"] * 2.0

    data = tf.data.Dataset.from_tensor_slices({"x": tf.ones([4, 2])})
    batches = iter(strategy.distribute_datasets_from_function(lambda context: data))
    run_steps = make_loop(strategy, step, ("a", "b"))
    steps = inspect.getclosurevars(run_steps).nonlocals["steps"]
    graph = steps.get_concrete_function(batches, tf.constant(4)).graph
    return [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]


def test_the_loop_says_which_step_was_the_first_bad_one():
    values = tf.constant([[1.0], [np.inf], [1.0], [np.nan]])
    run_steps = make_loop(tf.distribute.get_strategy(), lambda batch: batch, ("loss",))
    result = run_steps(iter(tf.data.Dataset.from_tensor_slices(values)), 4)
    assert result.first_bad == 1
    result = run_steps(iter(tf.data.Dataset.from_tensor_slices(values)), 1)
    assert result.first_bad is None and result.metrics == {"loss": 1.0}


def test_numbers_of_steps_are_averaged_and_the_first_bad_one_is_found():
    numbers = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    assert LoopResult.of(("a", "b"), numbers, 0.5) == LoopResult({"a": 2.0, "b": 4.0}, None, 0.5)
    bad = np.array([[1.0, 2.0], [3.0, np.nan], [np.inf, 1.0]])
    assert LoopResult.of(("a", "b"), bad, 0.0).first_bad == 1


@pytest.mark.parametrize("replicas", [None, 2])
def test_the_clock_waits_for_numbers_that_have_reached_the_host(replicas):
    """An op on a GPU counts as done when it has been handed over, but for a copy to the host."""
    ops = [op for graph in graphs(strategy_of(replicas)) for op in graph.get_operations()]
    ended, arrived = (op for op in ops if op.type == "Timestamp")
    (total,) = ended.control_inputs
    (added,) = (op for op in total.outputs[0].consumers() if op.type == "AddV2")
    copy = added.inputs[1].op
    assert added.device == copy.device == HOST and copy.type == "Identity"
    assert "replica" in copy.inputs[0].op.name
    fetched = {op for op in ops if op.type == "IteratorGetNext"}
    assert {ended, *fetched} <= set(arrived.control_inputs)
    assert len(fetched) == (replicas or 1)


@pytest.mark.parametrize("replicas", [None, 2])
def test_what_is_not_of_a_replica_is_computed_on_the_host(replicas):
    elsewhere = {
        (op.type, op.device)
        for graph in graphs(strategy_of(replicas))
        for op in graph.get_operations()
        if "replica" not in op.name and op.device != HOST
    }
    # Arguments, data as it comes, and what a function's results pass through.
    passed = {(kind, "") for kind in ("Placeholder", "IteratorGetNext", "Identity", "NoOp")}
    assert elsewhere <= passed


@pytest.mark.parametrize("replicas", [None, 2])
def test_replicas_stay_on_their_devices(replicas):
    devices = [
        op.device
        for graph in graphs(strategy_of(replicas))
        for op in graph.get_operations()
        if "replica" in op.name and op.type == "Mul"
    ]
    expected = [f"CPU:{i}" for i in range(replicas)] if replicas else [""]  # TensorFlow chooses
    assert [device[-5:] for device in devices] == expected
