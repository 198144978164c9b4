"""If this breaks, a network on a TPU is not the network that runs, or is exported, elsewhere."""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.models import packing
from simclr_tf.models.packing import Conv2D, MaxPool, Unpack, spread
from simclr_tf.models.resnet import resnet


def convolution(x, kernel, stride):
    """In float64: padded by (k-1)//2 before, every output a plain sum."""
    size = kernel.shape[0]
    before = (size - 1) // 2
    x = np.pad(x, [(0, 0), (before, size - 1 - before), (before, size - 1 - before), (0, 0)])
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(size):
        for j in range(size):
            window = x[:, i : i + stride * height : stride, j : j + stride * width : stride]
            y += window @ kernel[i, j].astype(np.float64)
    return y


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    columns=st.permutations(range(4)) | st.permutations(range(2)) | st.just([0]),
    seed=st.integers(0, 99),
)
def test_a_spread_kernel_gives_the_same_sums(size, stride, columns, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 8, 16, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 5)).astype(np.float32)
    expected = convolution(x, kernel, stride)
    wide, (before, after) = spread(tf.constant(kernel), stride, columns)
    packed = x.reshape(2, 8, -1, 3 * stride * len(columns))
    rows = (size - 1) // 2
    packed = np.pad(packed, [(0, 0), (rows, size - 1 - rows), (before, after), (0, 0)])
    y = tf.nn.conv2d(packed, wide, [stride, 1], "VALID").numpy()
    y = y.reshape(*y.shape[:3], len(columns), 5)[:, :, :, np.argsort(columns)]
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("packed", [False, True])
def test_convolutions_of_plain_and_packed_maps(size, stride, packed):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    layer = Conv2D(6, size, stride)
    layer.build(x.shape)
    y = layer(x.reshape(2, 8, 4, 8) if packed else x).numpy()
    assert y.shape == (
        (2, 8, 4, 12) if packed and stride == 1 else (2, 8 // stride, 8 // stride, 6)
    )
    expected = convolution(x, layer.kernel.numpy(), stride)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_max_pooling_of_packed_maps():
    x = np.random.default_rng(0).normal(size=(2, 8, 16, 3)).astype(np.float32)
    dy = np.random.default_rng(1).normal(size=(2, 4, 8, 3)).astype(np.float32)
    order = list(packing.PACKED_FOR_POOL)
    permuted = x.reshape(2, 8, 4, 4, 3)[:, :, :, order].reshape(2, 8, 4, 12)
    layer = MaxPool()
    layer.build(x.shape)

    def run(x, dy):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, x, tf.reshape(dy, y.shape))

    plain_y, plain_dx = run(x, dy)
    packed_y, packed_dx = run(permuted, dy)
    np.testing.assert_array_equal(plain_y, tf.nn.max_pool2d(x, 3, 2, "SAME"))
    np.testing.assert_array_equal(tf.reshape(packed_y, plain_y.shape), plain_y)
    unpack = Unpack(order)
    unpack.build(x.shape)
    np.testing.assert_allclose(unpack(packed_dx), plain_dx, rtol=1e-6, atol=1e-6)


@pytest.mark.own_process
@pytest.mark.parametrize(
    ("depth", "size", "packs"),
    [(18, 32, 2), (18, 66, 1), pytest.param(50, 96, 4, marks=pytest.mark.slow)],
)
def test_a_network_under_xla_is_the_network_outside(depth, size, packs):
    """All outputs and gradients; 66 pixels do not pack."""
    keras.utils.set_random_seed(0)
    model = resnet(depth=depth, width_multiplier=0.125, image_size=size)
    images = tf.random.stateless_uniform([4, size, size, 3], [1, 2])
    filters = []
    convolve = tf.nn.conv2d

    def recorded(x, kernel, *args):
        filters.append(kernel.shape[-1])
        return convolve(x, kernel, *args)

    @mock.patch.object(tf.nn, "conv2d", recorded)
    def run(training, **options):
        @tf.function(**options)
        def outputs_and_gradients(images):
            with tf.GradientTape() as tape:
                outputs = model(images, training=training)
                loss = sum(tf.reduce_mean(tf.sin(7 * value)) for value in outputs.values())
            return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

        start = model.get_weights()
        filters.clear()
        outputs, gradients = outputs_and_gradients(images)
        model.set_weights(start)
        return filters[0], outputs, gradients

    # In training rounding grows from layer to layer, as statistics of few values do it.
    for training, output_error, gradient_error in ((False, 2e-6, 2e-5), (True, 2e-5, 1e-3)):
        first, plain, plain_gradients = run(training)
        assert first == 8
        first, packed, packed_gradients = run(training, jit_compile=True)
        assert first == packs * 8
        for name, value in plain.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(packed[name], value, atol=output_error * scale, err_msg=name)
        flat = [
            np.concatenate([np.ravel(g) for g in gs]) for gs in (plain_gradients, packed_gradients)
        ]
        assert np.linalg.norm(flat[1] - flat[0]) < gradient_error * np.linalg.norm(flat[0])
