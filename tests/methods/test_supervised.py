"""If this breaks, classifiers learn something else than cross-entropy, or frozen parts move."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.models.classifier import freeze_groups
from simclr_tf.models.heads import first_layers, linear_probe, projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.models.simclr import SimCLR
from simclr_tf.optim.factory import momentum
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.classification import (
    class_logits,
    cross_entropies,
    label_ranks,
    make_classification_step,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 16, 16, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, -1, 2, 1], np.int32)


def build(head_layers=1, frozen=-1) -> SimCLR:
    keras.utils.set_random_seed(1)
    encoder = resnet(18, 0.125, image_size=16)
    head = first_layers(projection_head(num_layers=2, output_dim=8, input_dim=64), head_layers)
    freeze_groups(encoder, frozen)
    return SimCLR(encoder, head, linear_probe(4, input_dim=64))


def optimizer_for(simclr):
    rule = momentum(weight_decay=0.0, learning_rate=WarmupCosine(0.1, 0, 10), simclr=simclr)
    rule.build(simclr.trainable_variables)
    return rule


def groups_of(simclr):
    return {v.path: v.numpy() for v in simclr.variables}


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_ranks_and_losses_against_naive_loops(classes, rows, seed, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    labels = rng.integers(-1, classes, rows)
    ranks = label_ranks(tf.constant(logits), tf.constant(labels)).numpy()
    losses = cross_entropies(tf.constant(logits), tf.constant(labels)).numpy()
    for row, label, rank, loss in zip(logits.astype(float), labels, ranks, losses, strict=True):
        if label < 0:
            assert rank == classes and loss == 0
            continue
        assert rank == sorted(range(classes), key=lambda c: (-row[c], c)).index(label)
        expected = math.log(sum(math.exp(x) for x in row)) - row[label]
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_step_follows_the_gradient_of_the_mean_cross_entropy():
    """The change of the classifier's weights against the textbook gradient in float64."""
    simclr = build()
    kernel = next(v for v in simclr.variables if v.path == "probe_dense/kernel")
    before = kernel.numpy().astype(float)
    layer = simclr.projection_head(
        simclr.encoder(IMAGES, training=True)["final_avg_pool"], training=True
    )["projection_1"].numpy()
    logits = layer.astype(float) @ before
    known = LABELS >= 0
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    numbers = make_classification_step(simclr, optimizer_for(simclr))(
        {"images": tf.constant(IMAGES), "labels": tf.constant(LABELS)}
    )
    target = np.eye(4)[LABELS] * known[:, None]
    gradient = layer.T @ ((p * known[:, None] - target) / 8)
    # Nesterov's first step: (1 + momentum) times the gradient.
    np.testing.assert_allclose((before - kernel.numpy()) / 0.1, 1.9 * gradient, atol=2e-4)
    expected = -np.log(p[np.arange(8), LABELS])[known].sum() / 8
    np.testing.assert_allclose(numbers[0], expected, rtol=1e-4)


@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_frozen_parts_are_frozen_to_the_byte_and_nothing_else_is(frozen):
    simclr = build(frozen=frozen)
    before = groups_of(simclr)
    step = tf.function(make_classification_step(simclr, optimizer_for(simclr)))
    for _ in range(2):
        step({"images": tf.constant(IMAGES), "labels": tf.constant(LABELS)})
    kept = tuple(f"block_group{k}_" for k in range(1, frozen + 1))
    kept += ("stem_",) * (frozen >= 0)
    for path, value in groups_of(simclr).items():
        still = value.tobytes() == before[path].tobytes()
        assert still == path.startswith(kept), path


def test_frozen_batch_norm_uses_its_moving_averages():
    simclr = build(frozen=4)
    for variable in simclr.encoder.variables:
        variable.assign(np.abs(variable.numpy()) + 0.1)
    expected = simclr.encoder(IMAGES, training=False)["final_avg_pool"]
    found = simclr.encoder(IMAGES, training=True)["final_avg_pool"]
    np.testing.assert_array_equal(found, expected)


def test_two_replicas_take_the_step_of_one():
    def run(replicas):
        strategy = simulated_replicas(replicas) if replicas > 1 else tf.distribute.get_strategy()
        with strategy.scope():
            simclr = build()
            step = make_classification_step(simclr, optimizer_for(simclr))
        part = 8 // replicas
        batch = {
            "images": strategy.experimental_distribute_values_from_function(
                lambda c: tf.constant(IMAGES[c.replica_id_in_sync_group * part :][:part])
            )
            if replicas > 1
            else tf.constant(IMAGES),
            "labels": strategy.experimental_distribute_values_from_function(
                lambda c: tf.constant(LABELS[c.replica_id_in_sync_group * part :][:part])
            )
            if replicas > 1
            else tf.constant(LABELS),
        }
        numbers = tf.function(lambda b: strategy.run(step, args=(b,)))(batch)
        return strategy.experimental_local_results(numbers)[0].numpy(), groups_of(simclr)

    (one, alone), (two, together) = run(1), run(2)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    for path, value in alone.items():
        error = np.linalg.norm(together[path] - value) / (np.linalg.norm(value) + 1e-3)
        assert error < 1e-4, path


def test_logits_are_those_of_the_kept_layers():
    simclr = build(head_layers=0)
    h = simclr.encoder(IMAGES, training=False)["final_avg_pool"].numpy()
    kernel, bias = (v.numpy() for v in simclr.probe.variables)
    np.testing.assert_allclose(
        class_logits(simclr, IMAGES, training=False), h @ kernel + bias, rtol=1e-4, atol=1e-5
    )


def test_layers_that_the_head_lacks_are_refused():
    with pytest.raises(ValueError, match="projection_3"):
        first_layers(projection_head(input_dim=64), 3)
    with pytest.raises(ValueError, match="from -1 to 4"):
        freeze_groups(resnet(18, 0.125, image_size=16), 5)
