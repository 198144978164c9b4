"""If this breaks, batch norm shows MoCo the positive, or changes with the replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.batch_norm import (
    SyncBatchNormalization,
    separate_statistics,
    statistics_groups,
)
from simclr_tf.models.resnet import resnet
from tests.distribute.test_batch_norm import (
    BETA,
    CHANNELS,
    GAMMA,
    assert_equal,
    inputs,
    oracle,
    train_once,
)
from tests.distribute.test_collectives import on_replicas
from tests.support.threads import entered_elsewhere


def growing(shape) -> np.ndarray:
    """Rows with larger and larger means and deviations."""
    factors = np.linspace(1, 2, shape[0], dtype=np.float32)
    return inputs(shape, offset=3.0) * factors.reshape(-1, *[1] * (len(shape) - 1))


def oracle_of_groups(x, dy, groups: int) -> dict[str, np.ndarray]:
    """Each group by itself; the moving statistics follow the mean of theirs."""
    pairs = zip(np.split(x, groups), np.split(dy, groups), strict=True)
    found = [oracle(x, GAMMA, BETA, dy) for x, dy in pairs]
    joined = {"y": np.concatenate, "dx": np.concatenate, "dgamma": np.sum, "dbeta": np.sum}
    return {
        name: joined.get(name, np.mean)([one[name] for one in found], axis=0) for name in found[0]
    }


@pytest.mark.parametrize("shape", [(16, 5, 5, CHANNELS), (16, CHANNELS)])
@pytest.mark.parametrize(("groups", "replicas"), [(4, 1), (4, 2), (2, 2), (2, 4)])
def test_each_group_is_normalized_by_itself(groups, replicas, shape):
    """Whether a replica has several groups, or a group several replicas."""
    x = growing(shape)
    dy = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    actual = train_once(replicas, x, dy, groups=groups)
    assert_equal(actual, oracle_of_groups(x, dy, groups))


@pytest.mark.parametrize("shape", [(8, 5, 5, CHANNELS), (8, CHANNELS)])
def test_under_xla(shape):
    x, dy = growing(shape), np.random.default_rng(1).normal(size=shape).astype(np.float32)
    layer = SyncBatchNormalization()
    layer.build(shape)
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)

    @tf.function(jit_compile=True)
    def run(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            with separate_statistics(2):
                y = layer(x, training=True)
        dx, dgamma, dbeta = tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)
        return {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}

    actual = run(x, dy) | {n: getattr(layer, n) for n in ("moving_mean", "moving_variance")}
    actual = {name: np.asarray(value) for name, value in actual.items()}
    assert_equal(actual, oracle_of_groups(x, dy, 2), tolerance=1e-4)


def test_groups_and_replicas_divide_each_other():
    x = inputs((12, CHANNELS))
    with pytest.raises(ValueError, match="groups=3, replicas=2"):
        train_once(2, x, x, groups=3)


def test_a_block_that_is_computed_again_has_the_same_groups():
    gradients = []
    for remat in ((), (1,)):
        keras.utils.set_random_seed(0)
        model = resnet(depth=18, width_multiplier=0.125, image_size=16, remat=remat)
        images = tf.random.stateless_uniform([4, 16, 16, 3], [1, 2])
        with tf.GradientTape() as tape:
            with separate_statistics(2):
                h = model(images, training=True)["final_avg_pool"]
            loss = tf.reduce_sum(tf.sin(7 * h))
        kernel = next(v for v in model.trainable_variables if v.path.endswith("kernel"))
        gradients.append(tape.gradient(loss, kernel.value))
    scale = np.abs(gradients[0]).max()
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-4 * scale)


def test_they_are_separate_in_one_thread_alone():
    with entered_elsewhere(separate_statistics(2)):
        assert statistics_groups() == 1
    with separate_statistics(2):
        assert statistics_groups() == 2


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_collectives_of_a_group(groups):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    def function(x):
        return collectives.stack(x, groups), collectives.group_mean(x, groups)

    parts = x.reshape(groups, -1, 3)
    for replica, (stacked, mean) in enumerate(on_replicas(4, function, x)):
        own = parts[replica * groups // 4]
        np.testing.assert_array_equal(stacked, own)
        np.testing.assert_allclose(mean, own.mean(0), rtol=1e-6)
