"""If this breaks, preflight compiles another program than the one that a TPU runs.

`LoweringStrategy` and TensorFlow's own TPUStrategy, over cores that do not exist, side by side.
"""

import collections

import pytest
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.lowering import LoweringStrategy, lower, traced_once
from simclr_tf.errors import RequestError
from tests.support.fake_tpu import fake_tpu_strategy, program

CORES = 4
STRATEGIES = (LoweringStrategy, fake_tpu_strategy)

NO_CORES = "no core holds a copy of the lowered program's variables"
NO_INPUT = "nothing feeds the lowered program"
# What TPUStrategy answers otherwise, or alone, and why no replica function is traced otherwise.
DIFFERENT = {
    "worker_devices": NO_CORES,
    "parameter_devices": NO_CORES,
    "_retrace_functions_for_each_device": NO_CORES,
    "_use_var_policy": NO_CORES,
    "lazy_variable_tracker": NO_CORES,
    "num_hosts": NO_INPUT,
    "num_replicas_per_host": NO_INPUT,
    "experimental_enable_get_next_as_optional": NO_INPUT,
    "steps_per_run": "a number of steps for loops of TensorFlow 1",
    "tpu_run": "what Strategy.run calls, in place of _call_for_each_replica",
    "tpu_hardware_feature": "asked for embeddings alone",
    "experimental_logical_device": "asked for where one replica has several cores",
}
# What tf.distribute and Keras ask of a strategy beside its public answers.
PRIVATE = (
    "_default_device",
    "_get_local_replica_id",
    "_global_batch_size",
    "_in_multi_worker_mode",
    "_num_replicas_in_sync",
    "_retrace_functions_for_each_device",
    "_use_merge_call",
    "_use_var_policy",
)


def answer(extended, name: str):
    """A property, what a method without arguments returns, or that another method is there."""
    if name == "_get_local_replica_id":
        return extended._get_local_replica_id(3)
    value = getattr(extended, name, "missing")
    if name in PRIVATE and callable(value):
        return value()
    return "a method" if callable(value) else value


def test_both_answer_alike():
    ours, real = (make(CORES).extended for make in STRATEGIES)
    public = {n for n in (*dir(ours), *dir(real)) if not n.startswith("_")}
    differ = {
        name: (answer(ours, name), answer(real, name))
        for name in (*public, *PRIVATE)
        if answer(ours, name) != answer(real, name)
    }
    assert not {name: found for name, found in differ.items() if name not in DIFFERENT}


def test_both_give_replicas_the_same_context():
    kinds = []

    def replica_fn(x):
        context = tf.distribute.get_replica_context()
        kinds.append(type(context))
        number = context.replica_id_in_sync_group
        assert tf.is_tensor(number) and (number.dtype, number.shape) == (tf.int32, [])
        assert number.op.type != "Const"  # it stands for every replica's
        assert context.num_replicas_in_sync == collectives.num_replicas() == CORES
        assert collectives.usable_in_loops()
        return x

    for make in STRATEGIES:
        strategy = make(CORES)
        assert traced_once(strategy) and strategy.num_replicas_in_sync == CORES
        program(strategy, replica_fn, X)
    assert kinds[0] is kinds[1]


X = tf.TensorSpec([6, 2])
# Ops that hand tensors on, and tell a replica its number.
PLUMBING = (
    *("Const", "Identity", "NoOp", "Placeholder", "ReadVariableOp", "TPUReplicateMetadata"),
    "XlaReplicaId",
)
# TensorFlow takes its own sum over replicas for stateful, and so the loop that holds one.
SAME = {
    "XlaAllReduce": "sum over replicas",
    "CrossReplicaSum": "sum over replicas",
    "StatelessWhile": "While",
}


def kinds_of(ops: list[tf.Operation]) -> collections.Counter:
    """How many of each kind compute something."""
    kinds = collections.Counter(SAME.get(op.type, op.type) for op in ops)
    return collections.Counter({k: n for k, n in kinds.items() if k not in PLUMBING})


def context() -> tf.distribute.ReplicaContext:
    return tf.distribute.get_replica_context()


def structure(x):
    return {"b": [x, tf.cast(x, tf.bfloat16)], "a": (tf.cast(x, tf.float16), x[0])}


def gradient_of(function):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nest.flatten(function(x))
        return tape.gradient(y, x)

    return gradient


def in_a_loop(x):
    return tf.while_loop(
        lambda i, x: i < 3,
        lambda i, x: (i + 1, context().all_reduce("SUM", x) * 0.5),
        (tf.constant(0), x),
    )


def second_gradient(x):
    return gradient_of(gradient_of(lambda x: context().all_reduce("SUM", x**2)))(x)


COLLECTIVES = {
    "sum": lambda x: context().all_reduce(tf.distribute.ReduceOp.SUM, structure(x)),
    "mean": lambda x: context().all_reduce("MEAN", structure(x)),
    "sum of integers": lambda x: context().all_reduce("SUM", tf.cast(x, tf.int32)),
    "gather rows": lambda x: context().all_gather(x, axis=0),
    "gather columns": lambda x: context().all_gather(structure(x)["b"], axis=1),
    "gather from the end": lambda x: context().all_gather(tf.cast(x, tf.int32), axis=-1),
    "gradient of a sum": gradient_of(lambda x: context().all_reduce("SUM", structure(x))),
    "gradient of a mean": gradient_of(lambda x: context().all_reduce("MEAN", structure(x))),
    "gradient of a gather": gradient_of(lambda x: context().all_gather(x, axis=1)),
    "second gradient": second_gradient,
    "loop": in_a_loop,
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_both_write_the_same_program_for_a_collective(name):
    results, kinds = [], []

    def replica_fn(x):
        results.append(tf.nest.map_structure(lambda y: (y.dtype, y.shape), COLLECTIVES[name](x)))

    for make in STRATEGIES:
        kinds.append(kinds_of(program(make(CORES), replica_fn, X)))
    assert results[0] == results[1]
    assert kinds[0] == kinds[1] and kinds[0]["sum over replicas"]


def test_both_merge_inline_and_update_each_variable_once():
    """As Keras' optimizers do: a merge call, and in it an update of every variable."""
    returned, kinds = [], []
    for make in STRATEGIES:
        strategy = make(CORES)
        with strategy.scope():
            variables = [tf.Variable(tf.ones([2])), tf.Variable(1.0)]

        def merge(given, x, strategy=strategy, variables=variables):
            assert given is strategy and tf.distribute.in_cross_replica_context()
            assert context() is None and collectives.num_replicas() == 1
            return [
                given.extended.update(v, lambda v, x: v.assign(v * 2.0 + x), (x,), group=group)
                for v, group in zip(variables, (False, True), strict=True)
            ]

        def replica_fn(x, merge=merge, variables=variables):
            alone, grouped = context().merge_call(merge, args=(tf.reduce_sum(x),))
            returned.append((type(alone), len(alone), isinstance(grouped, tuple)))
            variables[0].assign_add(x[0])  # as batch normalization does
            return x

        kinds.append(kinds_of(program(strategy, replica_fn, X)))
    assert returned[0] == returned[1]
    assert kinds[0] == kinds[1]
    assert (kinds[0]["AssignVariableOp"], kinds[0]["AssignAddVariableOp"]) == (2, 1)


@pytest.mark.slow
def test_both_write_the_same_program_for_a_training_step(build_tiny):
    """But for the count of steps, which TPUStrategy takes from the first replica."""
    numbers = tf.TensorSpec([4], tf.int32)
    batch = {"images": tf.TensorSpec([8, 16, 16, 3]), "labels": numbers, "index": numbers}
    kinds = []
    for make in STRATEGIES:
        strategy = make(CORES)
        with strategy.scope():
            tiny = build_tiny(rate=0.1, precision="mixed_bfloat16")
        kinds.append(kinds_of(program(strategy, tiny.step(), batch)))
    combined = [
        v.path
        for v in (*tiny.networks.variables, *tiny.optimizer.variables)
        if v.value.aggregation != tf.VariableAggregation.NONE
    ]
    assert combined == [tiny.optimizer.iterations.path]
    ours, real = kinds
    assert real - ours == {"AllToAll": 1, "Pack": 1, "StridedSlice": 1}
    assert not ours - real
    assert ours["sum over replicas"] > 30 and ours["Conv2D"] > 5


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        (lambda x: tf.raw_ops.Eig(input=x, Tout=tf.complex64)[0], r"Eig \(Eig\) has no kernel"),
        (lambda x: tf.random.poisson([4], x[0, 0]), r"\(RandomPoissonV2\) has no kernel"),
        (lambda x: tf.strings.length(tf.strings.as_string(x)), r"\(AsString\) gives string"),
        (lambda x: tf.boolean_mask(x, x > 0), r"has the shape \(None"),
    ],
)
def test_what_no_device_runs_is_refused_by_name(op, fault):
    with pytest.raises(RequestError, match=fault):
        lower(LoweringStrategy(1), op, tf.TensorSpec([4, 4]))
