"""If this breaks, classifiers learn something else than cross-entropy, or frozen parts move."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP
from simclr_tf.methods.supervised import Supervised
from simclr_tf.models.classifier import build_classifier, freeze_groups
from simclr_tf.models.heads import first_layers, projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.optim.factory import momentum
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.step import make_train_step, step_metrics

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 16, 16, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, -1, 2, 1], np.int32)
BATCH = {"images": tf.constant(IMAGES), "labels": tf.constant(LABELS)}


def build(head_layers=1, frozen=-1, decay=0.0) -> Supervised:
    networks = build_classifier(
        functools.partial(resnet, 18, 0.125),
        functools.partial(projection_head, num_layers=2, output_dim=8),
        image_size=16,
        num_classes=4,
        head_layers=head_layers,
        zero_init=False,
        seed=1,
    )
    freeze_groups(networks["encoder"], frozen)
    views = ViewGroup("images", [CROP_AND_FLIP], 16)
    return Supervised(networks, [views], classifier_decay=decay)


def step_of(method):
    """The replica function of a method, and the names of its numbers."""
    schedule = WarmupCosine(0.1, 0, 10)
    rule = momentum(weight_decay=0.0, learning_rate=schedule, networks=method.networks)
    rule.build(method.networks.trainable_variables)
    return make_train_step(method, rule), [m.name for m in step_metrics(method, rule)]


def values(method):
    return {v.path: v.numpy() for v in method.networks.variables}


def test_an_unknown_label_is_not_found_among_fewer_than_five_classes():
    method = build(head_layers=0)
    logits = tf.constant(RNG.normal(size=(8, 4)).astype(np.float32))
    _, found = method.loss({"logits": logits}, {"labels": tf.constant(LABELS)})
    assert float(found["top5"]) == pytest.approx(7 / 8)
    _, found = method.loss({"logits": logits}, {"labels": tf.fill([8], -1)})
    assert float(found["top5"]) == 0.0 == float(found["top1"])


def test_a_step_follows_the_gradient_of_the_mean_cross_entropy():
    """The change of the classifier's weights against the textbook gradient in float64."""
    method = build()
    encoder, head, _ = method.networks.values()
    kernel = next(v for v in method.networks.variables if v.path == "probe_dense/kernel")
    before = kernel.numpy().astype(float)
    layer = head(encoder(IMAGES, training=True)["final_avg_pool"], training=True)[
        "projection_1"
    ].numpy()
    logits = layer.astype(float) @ before
    known = LABELS >= 0
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    step, names = step_of(method)
    numbers = dict(zip(names, step(BATCH).numpy(), strict=True))
    target = np.eye(4)[LABELS] * known[:, None]
    gradient = layer.T @ ((p * known[:, None] - target) / 8)
    # Nesterov's first step: (1 + momentum) times the gradient.
    np.testing.assert_allclose((before - kernel.numpy()) / 0.1, 1.9 * gradient, atol=2e-4)
    expected = -np.log(p[np.arange(8), LABELS])[known].sum() / 8
    np.testing.assert_allclose(numbers["cross_entropy"], expected, rtol=1e-4)
    assert numbers["loss"] == numbers["cross_entropy"]
    found = [row.argmax() == y for row, y in zip(p, LABELS, strict=True)]
    assert numbers["top1"] == pytest.approx(np.mean(found))


def test_the_classifiers_kernel_alone_is_decayed_by_the_loss():
    """Its gradient is that of decay / 2 * ||kernel||^2, by autodiff."""
    method = build(decay=0.5)
    variables = method.networks.trainable_variables
    zeros = [tf.zeros_like(v) for v in variables]
    with tf.GradientTape() as tape:
        kernel = next(v for v in variables if v.path == "probe_dense/kernel")
        loss = 0.5 * tf.nn.l2_loss(kernel.value)
    expected = tape.gradient(loss, kernel.value)
    gradients = method.transform_gradients(None, zeros)
    for variable, gradient in zip(variables, gradients, strict=True):
        wanted = expected if variable is kernel else tf.zeros_like(variable)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-6, err_msg=variable.path)
    assert method.plan_lines(8) == {"classifier": "its kernel decayed by 0.5 in the loss"}


def test_the_numbers_of_a_step_are_declared():
    _, names = step_of(build())
    shares = ["loss", "cross_entropy", "top1", "top5", "representation_spread"]
    assert names == [*shares, "gradient_norm"]


@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_frozen_parts_are_frozen_to_the_byte_and_nothing_else_is(frozen):
    method = build(frozen=frozen)
    before = values(method)
    step = tf.function(step_of(method)[0])
    for _ in range(2):
        step(BATCH)
    kept = tuple(f"block_group{k}_" for k in range(1, frozen + 1))
    kept += ("stem_",) * (frozen >= 0)
    for path, value in values(method).items():
        still = value.tobytes() == before[path].tobytes()
        assert still == path.startswith(kept), path


def test_frozen_batch_norm_uses_its_moving_averages():
    method = build(frozen=4)
    for variable in method.networks["encoder"].variables:
        variable.assign(np.abs(variable.numpy()) + 0.1)
    expected = method.embed(BATCH, training=False)["representation"]
    found = method.embed(BATCH, training=True)["representation"]
    np.testing.assert_array_equal(found, expected)


def test_two_replicas_take_the_step_of_one():
    def run(replicas):
        strategy = simulated_replicas(replicas) if replicas > 1 else tf.distribute.get_strategy()
        with strategy.scope():
            method = build()
            step, _ = step_of(method)
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
        return strategy.experimental_local_results(numbers)[0].numpy(), values(method)

    (one, alone), (two, together) = run(1), run(2)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    for path, value in alone.items():
        error = np.linalg.norm(together[path] - value) / (np.linalg.norm(value) + 1e-3)
        assert error < 1e-4, path


@pytest.mark.parametrize("head_layers", [0, 1])
def test_logits_are_those_of_the_kept_layers(head_layers):
    method = build(head_layers)
    assert ("projection_head" in method.networks) == bool(head_layers)
    layer = method.networks["encoder"](IMAGES, training=False)["final_avg_pool"]
    if head_layers:
        layer = method.networks["projection_head"](layer, training=False)["projection_1"]
    kernel, bias = (v.numpy() for v in method.networks["probe"].variables)
    logits = layer.numpy() @ kernel + bias
    found = method.embed(BATCH, training=False)["logits"]
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    exported = method.exported()
    assert list(exported) == ["encoder", "classifier"]
    representation = exported["encoder"](IMAGES, training=False)["final_avg_pool"]
    served = exported["classifier"](representation, training=False)
    np.testing.assert_allclose(served, logits, rtol=1e-4, atol=1e-5)


def test_a_loss_that_says_nothing_is_that_of_guessing():
    assert build().expected(16) == (pytest.approx(math.log(4)), 0.0)


def test_layers_that_the_head_lacks_are_refused():
    with pytest.raises(ValueError, match="projection_3"):
        first_layers(projection_head(input_dim=64), 3)
    with pytest.raises(ValueError, match="from -1 to 4"):
        freeze_groups(resnet(18, 0.125, image_size=16), 5)
