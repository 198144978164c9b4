"""If this breaks, a bfloat16 network on a CPU follows a gradient that is not its convolutions'."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models import kernel_gradient
from simclr_tf.models.kernel_gradient import conv2d

on_a_cpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="a GPU keeps TensorFlow's own gradient"
)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(3, 1, "SAME"), (3, 1, "VALID"), (3, 2, "VALID"), (1, 1, "SAME"), (1, 2, "VALID")],
)
def test_products_are_the_gradient(side, size, stride, padding):
    """Against sums over all places in float64."""
    x = random(2, side, side + 2, 3)
    before = size // 2 if padding == "SAME" else 0
    padded = np.pad(x, [(0, 0), (before, before), (before, before), (0, 0)]).astype(np.float64)
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:3])
    dy = random(2, height, width, 5, seed=1)
    expected = np.zeros((size, size, 3, 5))
    for i in range(size):
        for j in range(size):
            seen = padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
            expected[i, j] = np.einsum("nhwc,nhwf->cf", seen[:, :height, :width], dy)
    found = kernel_gradient.kernel_gradient(tf.constant(x), tf.constant(dy), size, stride, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@on_a_cpu
@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "VALID")])
def test_a_large_bfloat16_kernel_has_the_gradient_of_conv2d(stride, padding, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_CACHE_BYTES", 1)
    taken = []
    products = kernel_gradient.kernel_gradient
    monkeypatch.setattr(
        kernel_gradient, "kernel_gradient", lambda *args: taken.append(1) or products(*args)
    )
    x, kernel = (tf.cast(random(*s), tf.bfloat16) for s in ((2, 9, 9, 8), (3, 3, 8, 4)))

    def gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel, stride, padding)
            loss = tf.reduce_sum(tf.square(tf.cast(y, tf.float32)))
        return [y, *tape.gradient(loss, [x, kernel])]

    ours = gradients(conv2d)
    assert taken
    for found, expected in zip(ours, gradients(tf.nn.conv2d), strict=True):
        found, expected = (np.float32(v) for v in (found, expected))
        # Without bfloat16 instructions, a CPU's conv2d rounds its sums to it too.
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@on_a_cpu
@pytest.mark.parametrize("custom", [True, False])
def test_networks_of_any_image_size_hold_no_custom_gradient(custom):
    """A SavedModel with one could not be trained where this package is not installed."""
    side = 4 if custom else None
    function = tf.function(lambda x, kernel: conv2d(x, kernel, 1, "SAME"))
    graph = function.get_concrete_function(
        tf.TensorSpec([None, side, side, 512], tf.bfloat16),
        tf.TensorSpec([3, 3, 512, 512], tf.bfloat16),
    ).graph
    assert ("IdentityN" in {op.type for op in graph.get_operations()}) == custom
