"""If this breaks, a prediction sees what it is to predict."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.context import QUARTERS, context_network

SIDE, D, T = 5, 6, 3
DIRECTIONS = ("down", "up", "right", "left")


def build(directions=DIRECTIONS, offsets: int = 2, **kwargs) -> keras.Model:
    keras.utils.set_random_seed(0)
    sizes = {"blocks": 2, "hidden_dim": 4, "target_dim": T, **kwargs}
    return context_network(
        **sizes, directions=directions, num_offsets=offsets, side=SIDE, input_dim=D
    )


def grids(count: int = 1) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(count, SIDE, SIDE, D)), tf.float32)


def seen(model: keras.Model, d: int, places: tuple) -> np.ndarray:
    """By which patches the predictions at some places have a gradient, [g, g]."""
    grid = grids()
    with tf.GradientTape() as tape:
        tape.watch(grid)
        predictions = model(grid)["predictions"][0, :, :, d]
        total = tf.reduce_sum(predictions[places] * np.sqrt(np.arange(2.0, 2 + 2 * T)))
    return np.abs(tape.gradient(total, grid)[0]).max(axis=2) > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_context_sees_nothing_further_in_its_direction(direction):
    """The gradient by all patches there is zero, exactly."""
    model = build(blocks=5)
    d, everything = DIRECTIONS.index(direction), slice(None)
    for line in range(SIDE):
        down = direction in ("down", "up")
        found = seen(model, d, (line, everything) if down else (everything, line))
        found = found if down else found.T
        before, after = (found[:line], found[line + 1 :])
        if direction in ("up", "left"):
            before, after = after, before
        assert not after.any()
        assert found[line].any() and (before.any() or not before.size)


def test_two_blocks_see_two_rows_up_and_two_columns_aside():
    """Blocks of a 1x3 and a 2x1 convolution; all of the window is used."""
    window = np.zeros((SIDE, SIDE), bool)
    window[1:4] = True
    np.testing.assert_array_equal(seen(build(hidden_dim=32), 0, (3, 2)), window)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_direction_is_that_of_a_turned_grid(direction):
    """One that has predictions alike sees a turned grid as "down" sees the grid."""
    down, other = build(("down",)), build((direction,))
    other.set_weights(down.get_weights())
    grid, turns = grids(2), QUARTERS[direction]
    turned = np.rot90(grid, turns, axes=(1, 2))
    expected = np.rot90(down(turned)["predictions"], -turns, axes=(1, 2))
    np.testing.assert_allclose(other(grid)["predictions"], expected, rtol=1e-5, atol=1e-6)


def test_the_network_is_its_formula():
    """One block, without TensorFlow: 1x1, ReLU, 1x3, zeros above, 2x1, ReLU, 1x1, sum, ReLU."""
    model = build(("down",), blocks=1)
    rng = np.random.default_rng(1)
    for v in model.variables:
        v.assign(rng.normal(size=v.shape))
    values = {v.path: v.numpy().astype(np.float64) for v in model.variables}
    grid = grids().numpy()[0].astype(np.float64)

    def layer(x, name):
        return x @ values[f"{name}/kernel"].squeeze() + values[f"{name}/bias"]

    x = np.maximum(layer(grid, "context_block1_conv1"), 0)
    wide = np.pad(x, [(0, 0), (1, 1), (0, 0)])
    kernel = values["context_block1_conv2/kernel"][0]
    x = sum(wide[:, i : i + SIDE] @ kernel[i] for i in range(3))
    x = np.pad(x + values["context_block1_conv2/bias"], [(1, 0), (0, 0), (0, 0)])
    kernel = values["context_block1_conv3/kernel"][:, 0]
    x = x[:-1] @ kernel[0] + x[1:] @ kernel[1] + values["context_block1_conv3/bias"]
    x = np.maximum(grid + layer(np.maximum(x, 0), "context_block1_conv4"), 0)
    found = model(grid[np.newaxis].astype(np.float32))
    np.testing.assert_allclose(
        found["predictions"][0, :, :, 0], layer(x, "predict_down"), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(found["targets"][0], layer(grid, "target"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [{"blocks": 0}, {"hidden_dim": 0}, {"target_dim": 2**21}])
def test_sizes_out_of_range_are_refused(sizes):
    [(name, value)] = sizes.items()
    with pytest.raises(InvalidArgument, match=f"{name}={value}"):
        build(**sizes)
