"""Images, keys and the promises that every random op makes."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import keys as keys_lib


@pytest.fixture(scope="session")
def keys() -> tf.Tensor:
    return keys_lib.example_keys(7, 3, np.arange(8), 0)


@pytest.fixture(scope="session")
def many_keys() -> tf.Tensor:
    return keys_lib.example_keys(11, 0, np.arange(4096), 1)


@pytest.fixture(scope="session")
def images() -> tf.Tensor:
    """Eight noisy colour gradients in [0, 1], 24 by 24."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.0, 1.0, 24)
    grid = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)
    noisy = rng.random((8, 1, 1, 3)) * grid + 0.3 * rng.standard_normal((8, 24, 24, 3))
    return tf.constant(np.clip(noisy, 0.0, 1.0), tf.float32)


@pytest.fixture(scope="session")
def assert_pure():
    """Checks that op(images, keys) is one function of each example, however it is called.

    The colour ops multiply rounding errors by up to 1.8 each: hence 5e-5, 1/80 of an 8-bit step.
    """

    def check(op, images, keys, atol=5e-5, xla=True):
        eager = op(images, keys).numpy()

        def close(other, how):
            np.testing.assert_allclose(other, eager, rtol=0, atol=atol, err_msg=how)

        close(tf.function(op)(images, keys).numpy(), "in tf.function")
        if xla:
            close(tf.function(op, jit_compile=True)(images, keys).numpy(), "compiled by XLA")
        singles = tf.data.Dataset.from_tensor_slices((images, keys)).batch(1).map(op)
        singles = np.concatenate([single.numpy() for single in singles])
        close(singles, "one example at a time in tf.data")
        close(op(images[::-1], keys[::-1]).numpy()[::-1], "in another order")

    return check


@pytest.fixture(scope="session")
def changed_examples():
    """Which examples an op changed: bool [N]."""

    def which(before, after):
        difference = np.abs(np.asarray(after) - np.asarray(before))
        return difference.reshape(len(difference), -1).max(axis=1) > 0.0

    return which
