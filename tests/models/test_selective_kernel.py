"""If this breaks, the wide and selective networks of SimCLRv2 are other networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.networks import count_parameters, variable_roles
from simclr_tf.models.resnet import resnet
from simclr_tf.models.selective_kernel import ShortcutPool, mix_streams


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_streams_are_mixed_as_the_paper_says():
    """In float64: global average of the sum, two matrices, a softmax over the streams."""
    x = maps(3, 5, 4, 24)
    inputs = keras.Input((None, None, 24))
    model = keras.Model(inputs, mix_streams(inputs, 0.0625, "block"))
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(rng.uniform(0.1, 1, variable.shape) * rng.choice([-1, 1], variable.shape))
    v = {variable.path: variable.numpy().astype(np.float64) for variable in model.variables}
    moving = v["block_mix_bn/moving_variance"] = np.abs(v["block_mix_bn/moving_variance"])
    model.get_layer("block_mix_bn").moving_variance.assign(moving)

    first, second = np.split(x.astype(np.float64), 2, axis=-1)
    hidden = (first + second).mean((1, 2)) @ v["block_mix_dense1/kernel"]
    assert hidden.shape == (3, 32)  # 12 * 0.0625 would be none
    normalized = (hidden - v["block_mix_bn/moving_mean"]) / np.sqrt(moving + 1e-5)
    hidden = np.maximum(normalized * v["block_mix_bn/gamma"] + v["block_mix_bn/beta"], 0)
    logits = np.exp(hidden @ v["block_mix_dense2/kernel"]).reshape(3, 2, 12)
    weights = logits / logits.sum(1, keepdims=True)
    expected = first * weights[:, 0, None, None] + second * weights[:, 1, None, None]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [6, 7])
def test_pooling_with_stride_counts_zeros_beyond_the_end(size):
    x = maps(2, size, size, 3)
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    half = (size + 1) // 2
    windows = padded[:, : 2 * half, : 2 * half].reshape(2, half, 2, half, 2, 3)
    y = ShortcutPool(2)(x)
    np.testing.assert_allclose(y, windows.mean((2, 4)), rtol=1e-5, atol=1e-6)
    assert ShortcutPool(2).compute_output_shape(x.shape) == y.shape


def test_pooling_without_stride_averages_what_is_there():
    x = maps(2, 5, 5, 3)
    y = ShortcutPool(1)(x).numpy()
    for i in range(5):
        for j in range(5):
            expected = x[:, i : i + 2, j : j + 2].mean((1, 2))
            np.testing.assert_allclose(y[:, i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(50, 1, 35), (50, 2, 140), (101, 1, 65), (152, 1, 89)]
)
def test_published_numbers_of_parameters(depth, width, millions):
    """SimCLRv2, table 1."""
    encoder = resnet(depth, width, sk_ratio=0.0625, image_size=224)
    assert round(count_parameters(encoder) / 1e6) == millions


def test_roles():
    encoder = resnet(50, 0.125, sk_ratio=0.0625, image_size=224)
    roles = variable_roles(encoder)
    expected = {
        "block_group1_block1_conv2/kernel": "kernel",
        "block_group1_block1_mix_dense1/kernel": "kernel",
        "block_group1_block1_mix_dense2/kernel": "kernel",
        "block_group1_block1_mix_bn/gamma": "batch_norm",
        "block_group1_block1_mix_bn/moving_mean": "batch_norm",
        "stem_conv3/kernel": "kernel",
        "stem_bn3/beta": "batch_norm",
    }
    assert expected.items() <= roles.items()
    assert roles.keys() == {v.path for v in encoder.variables}
    assert all((role == "kernel") == path.endswith("/kernel") for path, role in roles.items())


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 50), ("cifar", 32)])
def test_shapes_are_those_of_the_plain_network(stem, size):
    images = np.zeros((2, size, size, 3), np.float32)
    plain = resnet(50, 0.125, stem, image_size=size)
    selective = resnet(50, 0.125, stem, sk_ratio=0.0625, image_size=size)
    shapes = [{n: tuple(y.shape) for n, y in net(images).items()} for net in (plain, selective)]
    assert shapes[0] == shapes[1]
    first = {"imagenet": "stem_conv1", "cifar": "stem_conv"}[stem]
    assert selective.get_layer(first).kernel_size == (3, 3)


@pytest.mark.slow
@pytest.mark.own_process
def test_under_xla_it_is_the_network_outside():
    """Where plain networks pack columns: outputs and gradients."""
    keras.utils.set_random_seed(0)
    model = resnet(50, 0.125, "cifar", sk_ratio=0.0625, image_size=32)
    images = tf.random.stateless_uniform([4, 32, 32, 3], [1, 2])

    def run(**options):
        @tf.function(**options)
        def outputs_and_gradient(images):
            with tf.GradientTape() as tape:
                outputs = model(images, training=False)
                loss = sum(tf.reduce_mean(tf.sin(7 * value)) for value in outputs.values())
            return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

        outputs, gradients = outputs_and_gradient(images)
        return outputs, np.concatenate([np.ravel(g) for g in gradients])

    (plain, plain_gradient), (compiled, gradient) = run(), run(jit_compile=True)
    for name, value in plain.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(compiled[name], value, atol=1e-5 * scale, err_msg=name)
    assert np.linalg.norm(gradient - plain_gradient) < 1e-4 * np.linalg.norm(plain_gradient)


@pytest.mark.parametrize(
    ("depth", "ratio", "message"),
    [
        (18, 0.0625, "needs bottleneck blocks.*Received: depth=18, sk_ratio=0.0625"),
        (50, -1.0, "must be a share, from 0 to 1. Received: sk_ratio=-1.0"),
    ],
)
def test_rejects(depth, ratio, message):
    with pytest.raises(ValueError, match=message):
        resnet(depth, sk_ratio=ratio, image_size=32)
