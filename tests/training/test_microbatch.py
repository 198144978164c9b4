"""If this breaks, a batch in parts is not trained as the whole is, or does not fit after all."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.distribute.strategy import HostSlice, simulated_replicas
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.microbatch import gradients_in_microbatches
from simclr_tf.training.representation import direction_sums, representation_numbers
from simclr_tf.training.step import gradients_at_once
from tests.support.fake_tpu import fake_tpu_strategy, faults, program
from tests.support.views import pairs

BATCH, SIZE = 16, 16


# One image is in the first part and in the last.
INDEX = np.arange(BATCH, dtype=np.int32) % (BATCH - 1)


def views_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Both views [2, G, H, W, 3] and labels [G]."""
    rng = np.random.default_rng(1)
    views = rng.random((2, BATCH, SIZE, SIZE, 3), np.float32)
    return views, rng.integers(0, 3, BATCH).astype(np.int32)


def part(views: np.ndarray, labels: np.ndarray, rows: slice) -> dict[str, tf.Tensor]:
    images = views[:, rows].reshape(-1, *views.shape[2:])
    return {
        "images": tf.constant(images),
        "labels": tf.constant(labels[rows]),
        "index": tf.constant(INDEX[rows]),
    }


def build_unmixed(build_tiny, rate=1.0, remat=()):
    """Networks whose batch normalization uses moving statistics, and so keeps examples apart."""
    tiny = build_tiny(rate=rate, remat=remat)
    for model in tiny.networks.values():
        for layer in model._flatten_layers():
            if isinstance(layer, SyncBatchNormalization):
                layer.trainable = False
    # Built for what is trained; batch normalization is not any more.
    optimizer = lars(learning_rate=WarmupCosine(rate, 0, 10), networks=tiny.networks)
    optimizer.build(tiny.networks.trainable_variables)
    return dataclasses.replace(tiny, optimizer=optimizer)


def at_once(tiny, batch):
    return tf.function(lambda: gradients_at_once(tiny.method, batch)[:2])()


def in_parts(tiny, batch, count, views=lambda batch: batch):
    """Numbers and gradients; the targets of all parts are joined in the order of the batch."""

    def gradients():
        return gradients_in_microbatches(tiny.method, batch, count, views)

    *found, targets = tf.function(gradients)()
    np.testing.assert_array_equal(targets["index"], batch["index"])
    return found


def step_on(build_tiny, strategy, count: int, remat=()) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The numbers of one step of LARS, and by how much it moved each variable."""
    with strategy.scope():
        # Large, or what is compared would be lost in the rounding of the weights that it moves.
        tiny = build_unmixed(build_tiny, rate=100.0, remat=remat)
    trainable = tiny.networks.trainable_variables
    before = {v.path: v.numpy() for v in trainable}
    step = tiny.step(num_microbatches=count)
    views, labels = views_and_labels()
    size = BATCH // strategy.num_replicas_in_sync

    def own(context):
        first = context.replica_id_in_sync_group * size
        return part(views, labels, slice(first, first + size))

    batch = strategy.experimental_distribute_values_from_function(own)
    numbers = tf.function(lambda batch: strategy.run(step, (batch,)))(batch)
    moved = {v.path: v.numpy() - before[v.path] for v in trainable}
    return strategy.experimental_local_results(numbers)[0].numpy(), moved


@pytest.fixture(scope="module")
def whole_batch(build_tiny):
    return step_on(build_tiny, simulated_replicas(1), count=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "count", "remat"), [(1, 4, ()), (2, 2, ()), (1, 2, (1, 2, 3, 4))]
)
def test_parts_move_the_weights_as_the_whole_batch_does(
    build_tiny, whole_batch, replicas, count, remat
):
    """In a loop of the graph on one replica, and one after the other on several."""
    numbers, moved = step_on(build_tiny, simulated_replicas(replicas), count, remat)
    np.testing.assert_allclose(numbers, whole_batch[0], rtol=1e-5, atol=1e-5)
    for path, value in whole_batch[1].items():
        error = np.linalg.norm(moved[path] - value) / (np.linalg.norm(value) + 1e-9)
        assert error < 3e-5, f"{path}: relative error {error:.1e}"


def compare(found, expected, atol=1e-5):
    """Numbers, and gradients on the scale of the largest."""
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    scale = max(np.abs(gradient).max() for gradient in expected[1])
    for there, here in zip(expected[1], found[1], strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=atol * scale)


def test_one_part_is_the_whole_batch(build_tiny):
    tiny = build_tiny(rate=1.0)
    batch = part(*views_and_labels(), slice(None))
    compare(in_parts(tiny, batch, 1), at_once(tiny, batch))


def test_views_that_the_step_makes_are_the_same_in_parts(build_tiny):
    """Both passes augment a part of the shipped batch at a time, by its own examples' keys."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    source = ArraySource(
        name="arrays", num_examples=BATCH, class_names=None, images=images, labels=None
    )
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(("flip", 0.5), ("color_jitter", 0.8))), SIZE),
        seed=0,
        bad_images=BadImages(source),
        augment_on="device",
    )
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=BATCH)
    batch = next(iter(pipeline.dataset(host)))
    made = pipeline.with_views(batch)
    tiny = build_unmixed(build_tiny)
    compare(in_parts(tiny, batch, 4, pipeline.with_views), in_parts(tiny, made, 4))


@pytest.mark.slow
def test_gradient_is_that_of_networks_that_normalize_each_part(build_tiny):
    """One tape over all parts and the loss of all; and moving statistics that each part moves."""
    tiny = build_tiny(rate=1.0)
    views, labels = views_and_labels()
    start = [(v, v.numpy()) for v in tiny.networks.variables]

    @tf.function
    def one_tape():
        with tf.GradientTape() as tape:
            outputs = []
            for first in range(0, BATCH, 4):
                rows = part(views, labels, slice(first, first + 4))
                outputs.append(tiny.method.embed(rows, training=True))
            z = tf.concat([o["projection"][:4] for o in outputs], 0)
            z = tf.concat([z, *(o["projection"][4:] for o in outputs)], 0)
            loss, numbers = NTXent(0.5)(z, tf.constant(INDEX))
            h = tf.concat([o["representation"] for o in outputs], 0)
            numbers |= representation_numbers(direction_sums(h), 2 * BATCH)
        gradients = tape.gradient(loss, [v.value for v in tiny.networks.trainable_variables])
        return {"contrastive_loss": loss} | numbers, gradients

    expected = one_tape()
    moving = {v.path: v.numpy() for v in tiny.networks.variables}
    for variable, value in start:
        variable.assign(value)
    batch = part(views, labels, slice(None))
    compare(in_parts(tiny, batch, 4), expected)
    for variable in tiny.networks.variables:
        np.testing.assert_allclose(
            variable, moving[variable.path], rtol=1e-5, atol=1e-6, err_msg=variable.path
        )


TPU_BATCH = {
    "images": tf.TensorSpec([2 * 4, SIZE, SIZE, 3]),
    "labels": tf.TensorSpec([4], tf.int32),
    "index": tf.TensorSpec([4], tf.int32),
}


def step_for_tpus(build_tiny, strategy, count: int):
    with strategy.scope():
        tiny = build_tiny(rate=1.0, precision="mixed_bfloat16")
    return tiny.step(num_microbatches=count)


@pytest.mark.slow
@pytest.mark.parametrize("make", [LoweringStrategy, fake_tpu_strategy])
def test_a_tpu_is_given_one_loop_a_pass_whatever_the_number_of_parts(build_tiny, make):
    """And not a copy of the networks for every part. The networks have 7 convolutions."""
    for count in (2, 4):
        strategy = make(8)
        ops = program(strategy, step_for_tpus(build_tiny, strategy, count), TPU_BATCH)
        kinds = collections.Counter(op.type for op in ops)
        assert kinds["While"] + kinds["StatelessWhile"] == 2
        assert kinds["Conv2D"] == 2 * 7
        assert kinds["CrossReplicaSum"] + kinds["XlaAllReduce"] > 30
        assert not [fault for op in ops for fault in faults(op)]


@pytest.mark.slow
def test_microbatches_are_for_tpus(build_tiny):
    strategy = LoweringStrategy(8)
    text = lower(strategy, step_for_tpus(build_tiny, strategy, 2), TPU_BATCH).stablehlo
    assert text.count("stablehlo.while") == 2 and "bf16" in text
    for unwanted in ("f64", "?x", "dynamic_reshape", "custom_call"):
        assert unwanted not in text, unwanted
