"""If this breaks, a step is compared with one that trains another network, or with half a step."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.benchmark import step
from simclr_tf.benchmark.loss import plain_nt_xent
from simclr_tf.benchmark.plain import plain_copy, plain_step
from simclr_tf.errors import RequestError
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet

TINY = (
    "data.source = 'shapes'",
    "data.image_size = 32",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.125",
    "projection_head.output_dim = 8",
    "pretrain.global_batch_size = 4",
    "pretrain.epochs = 0.01",
)


def put_together(*bindings, runtime="tensorflow"):
    jobs.load()
    config.load([], [*TINY, *bindings])
    return pretraining(jobs.Context(model_dir="", tpu="none", runtime=runtime))


def with_values_of(plain, ours):
    for variable, value in zip(plain.variables, ours.variables, strict=True):
        assert variable.path.endswith(value.path)
        variable.assign(value.numpy())
    return plain


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_the_plain_network_computes_the_same(stem):
    ours = resnet(18, 0.125, stem, remat=[2], image_size=32)
    plain = with_values_of(plain_copy(ours), ours)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    for training in (True, False):
        outputs = plain(images, training=training)
        for name, expected in ours(images, training=training).items():
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-3, atol=1e-3)


def test_the_plain_step_descends_the_plain_loss():
    encoder = plain_copy(resnet(18, 0.125, image_size=16))
    head = plain_copy(projection_head(output_dim=8, input_dim=64))
    images = tf.constant(np.random.default_rng(0).random((8, 16, 16, 3), np.float32))
    weights = [v.value for v in (*encoder.trainable_variables, *head.trainable_variables)]
    with tf.GradientTape() as tape:
        z = head(encoder(images, training=True)["final_avg_pool"], training=True)
        loss = plain_nt_xent(z["projection_2"])
    expected = [
        w.numpy() - 0.01 * g.numpy()
        for w, g in zip(weights, tape.gradient(loss, weights), strict=True)
    ]
    before = [w.numpy() for w in weights]
    np.testing.assert_allclose(plain_step(encoder, head)({"images": images}), loss, rtol=1e-4)
    assert max(np.abs(w - b).max() for w, b in zip(weights, before, strict=True)) > 0.01
    for found, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.own_process
def test_a_recipe_is_measured():
    text = step.measure(put_together("pretrain.precision = 'mixed_bfloat16'"), rounds=1)
    for name in ("plain Keras step", "this step, float32", "this step, mixed_bfloat16"):
        assert f"| {name}" in text
    assert "matrices, bfloat16:" in text
    assert all(f"| {part} |" in text for part in ("forward", "backward", "optimizer, probe"))


def test_several_replicas_are_refused():
    run = put_together("pretrain.microbatch_size = 2")
    with pytest.raises(RequestError, match="1 replicas, micro-batches of 2"):
        step.measure(run, rounds=1)


@pytest.mark.slow
@pytest.mark.usefixtures("virtual_devices")
def test_a_recipe_is_measured_on_pjrt_devices(monkeypatch):
    from simclr_tf.benchmark import pjrt_step

    monkeypatch.setattr(pjrt_step, "_SECONDS", 0.1)
    text = pjrt_step.measure(put_together("strategy.cpu_replicas = 2", runtime="pjrt"), rounds=2)
    assert f"| {pjrt_step.ALONE} |" in text and "| fed, numbers read |" in text
    assert "MiB of each of 2 devices" in text
