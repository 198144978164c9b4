"""If this breaks, a batch is dealt out unevenly, or the devices at hand are used wrongly."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from simclr_tf.distribute import strategy
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.distribute.strategy import (
    HostSlice,
    check_global_batch,
    check_microbatch,
    create_strategy,
    host_slice,
)
from simclr_tf.errors import RequestError


@pytest.mark.parametrize(
    ("batch", "replicas", "images", "message"),
    [
        (100, 8, 1000, "global_batch_size=100, num_replicas=8. Nearest valid: 96, 104."),
        (3, 8, 1000, "Nearest valid: 8."),
        (64, 8, 60, "must not exceed the number of images.*Largest valid: 56. Add .*size = 56'."),
        (8, 8, 7, "an image for each replica.*num_replicas=8, 7 images"),
    ],
)
def test_batches_that_cannot_be_are_refused_with_those_that_can(batch, replicas, images, message):
    with pytest.raises(RequestError, match=message.replace(".", r"\.").replace(r"\.*", ".*")):
        check_global_batch(batch, replicas, images)


def test_too_large_a_batch_says_what_was_left_out():
    with pytest.raises(RequestError, match=r"Largest valid: 2\. .*Left out: 366 links that"):
        check_global_batch(64, 1, 2, left_out="366 links that lead outside")


def test_batches_that_divide_pass():
    check_global_batch(96, 8, 96)
    check_global_batch(1, 1, 1)


def test_the_advice_of_a_job_replaces_the_largest_batch():
    with pytest.raises(RequestError, match=r"Largest valid: 5\. Take 2\.$"):
        check_global_batch(6, 1, 5, advice="Take 2.")


@pytest.mark.parametrize(
    ("size", "replicas", "nearest"),
    [(0, 1, "1"), (5, 1, "4, 6"), (3, 2, "2, 4"), (48, 4, "24"), (1, 8, "8")],
)
def test_microbatches_that_cannot_be_are_refused_with_those_that_can(size, replicas, nearest):
    with pytest.raises(RequestError, match=rf"microbatch_size={size}, .* valid: {nearest}\."):
        check_microbatch(size, 24, replicas)


def test_microbatches_that_divide_pass():
    check_microbatch(8, 24, 4)
    check_microbatch(24, 24, 4)


def test_hosts_share_the_global_batch():
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=8
    )
    part = host_slice(context, 64)
    assert part == HostSlice(index=1, num_hosts=2, replicas=4, per_replica=8)
    assert (part.per_host, part.global_batch) == (32, 64)


def test_one_device_is_the_default(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert create_strategy(tpu="auto").num_replicas_in_sync == 1


def test_replicas_can_be_simulated_on_the_cpu():
    assert create_strategy(cpu_replicas=3, tpu="none").num_replicas_in_sync == 3


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2"}, "float32"), ({"avx512_bf16"}, "mixed_bfloat16"), (set(), "float32")],
)
def test_bfloat16_is_chosen_where_the_cpu_has_it(monkeypatch, flags, precision):
    monkeypatch.setattr(strategy, "_cpu_flags", lambda: flags)
    assert strategy.fast_precision(tf.distribute.get_strategy()) == precision


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([(6, 1)], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(7, 5), (7, 5)], "mixed_float16"),
        ([(8, 0), (7, 5)], "mixed_float16"),
        ([(8, 0), (6, 1)], "float32"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(9, 0), (10, 0)], "mixed_bfloat16"),
        ([None], "float32"),
    ],
)
def test_the_weakest_gpu_decides_the_precision(monkeypatch, capabilities, precision):
    details = {n: {"compute_capability": c} if c else {} for n, c in enumerate(capabilities)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    assert strategy.fast_precision(tf.distribute.get_strategy()) == precision


def test_programs_for_tpus_are_in_bfloat16_whatever_the_host_has(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(strategy, "_cpu_flags", set)
    assert strategy.fast_precision(LoweringStrategy(8)) == "mixed_bfloat16"


@pytest.mark.parametrize("count", [1, 2])
def test_the_plan_says_which_normalization_is_traced(count):
    replicas = create_strategy(cpu_replicas=count, tpu="none")
    with replicas.scope():
        layer = SyncBatchNormalization()
        layer.build((4, 2, 2, 3))

    def normalize():
        return layer(tf.ones([4, 2, 2, 3]), training=True)

    function = tf.function(lambda: replicas.run(normalize)).get_concrete_function()
    kinds = {op.type for op in function.graph.get_operations()}
    words = strategy.describe_computation(replicas)
    assert "FusedBatchNormV3" in kinds and "fused" in words
    assert ("over all replicas" in words) == (count == 2)
    assert "not compiled by XLA" in words


@pytest.mark.parametrize(
    ("master", "library", "runtime"),
    [
        ("", "/lib/libtpu.so", "PJRT plug-in"),
        ("", "", "StreamExecutor"),
        ("grpc://10.0.0.2:8470", "", "that of the workers' servers"),
    ],
)
def test_the_plan_names_the_runtime_of_a_tpu(monkeypatch, master, library, runtime):
    class Tpu(tf.distribute.TPUStrategy):
        num_replicas_in_sync = 8
        cluster_resolver = SimpleNamespace(master=lambda: master)

        def __init__(self):
            pass

    monkeypatch.setenv("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", library)
    assert strategy.describe(Tpu()).endswith(f", runtime: {runtime}")


def test_the_plan_says_that_xla_compiles_for_tpus():
    words = strategy.describe_computation(LoweringStrategy(1))
    assert words == "batch normalization over all replicas, compiled by XLA"
