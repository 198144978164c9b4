"""If this breaks, preflight of a wide network needs the memory of its weights, or tells lies."""

import re

import tensorflow as tf

from simclr_tf.distribute.lowering import LoweringStrategy, lower


def program(values: bool) -> tuple[str, list[bool]]:
    """The program of a step with two variables, and which initial values were computed."""
    strategy = LoweringStrategy(2, values=values)
    computed = []

    def initial(shape):
        computed.append(tf.executing_eagerly())
        return tf.random.stateless_uniform(shape, seed=[0, 1])

    with strategy.scope():
        weights = tf.Variable(lambda: initial([3, 2]))
        count = tf.Variable(lambda: tf.constant(7, tf.int64))

    def replica_fn(x):
        count.assign_add(1)
        weights.assign_sub(tf.matmul(x, weights))
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights))

    assert count.numpy() == 7  # a scalar has its value all the same
    text = lower(strategy, replica_fn, tf.TensorSpec([3, 3])).stablehlo
    return re.sub(r"_run_\d+", "", text), computed


def test_a_program_needs_no_values():
    text, computed = program(values=False)
    expected, expected_computed = program(values=True)
    assert text == expected and "tensor<3x2xf32>" in text
    assert True in expected_computed and True not in computed
