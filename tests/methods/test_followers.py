"""If this breaks, a target network or key encoder is not the average that its method needs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.methods.followers import follow, followers_of
from simclr_tf.models.networks import Networks


def network(name: str) -> keras.Model:
    x = keras.Input((2,))
    h = keras.layers.Dense(3, name=f"{name}_dense")(x)
    return keras.Model(x, SyncBatchNormalization(name=f"{name}_bn")(h))


def pair() -> tuple[Networks, Networks]:
    """Trained networks, and followers of the first of them."""
    source = Networks({"encoder": network("encoder"), "predictor": network("predictor")})
    return source, followers_of(source, Networks({"encoder": network("encoder")}), "target_")


def test_a_follower_starts_as_its_source():
    source, followers = pair()
    assert list(followers) == ["target_encoder"]
    for follower, variable in zip(followers.variables, source["encoder"].variables, strict=True):
        assert follower is not variable
        np.testing.assert_array_equal(follower, variable)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
def test_it_moves_by_the_share_that_it_does_not_keep(replicas, as_tensor):
    strategy = simulated_replicas(replicas)
    with strategy.scope():
        source, followers = pair()
    encoder = source["encoder"]
    # By hand: 0.75 * 0 + 0.25 * 8 = 2; 0.5 * 2 + 0.5 * -4 = -1.
    steps = [(0.75, 8.0, 2.0), (0.5, -4.0, -1.0)]
    for follower in followers.variables:
        follower.assign(tf.zeros(follower.shape))
    for decay, value, expected in steps:
        for variable in source.variables:
            variable.assign(tf.fill(variable.shape, value))
        share = tf.constant(decay) if as_tensor else decay
        strategy.run(tf.function(lambda share=share: follow(followers, source, share)))
        assert len(followers.trainable_variables) == 4
        for follower in followers.trainable_variables:
            np.testing.assert_array_equal(follower, np.full(follower.shape, expected))
        for variable in encoder.variables:
            np.testing.assert_array_equal(variable, np.full(variable.shape, value))
        for moving in followers["target_encoder"].non_trainable_variables:
            np.testing.assert_array_equal(moving, np.zeros(moving.shape))


@pytest.mark.parametrize(("decay", "expected"), [(1.0, 0.0), (0.0, 8.0)])
def test_the_ends_of_the_decay_are_exact(decay, expected):
    source, followers = pair()
    for follower in followers.variables:
        follower.assign(tf.zeros(follower.shape))
    for variable in source.variables:
        variable.assign(tf.fill(variable.shape, 8.0))
    follow(followers, source, decay)
    for follower in followers.trainable_variables:
        np.testing.assert_array_equal(follower, np.full(follower.shape, expected))


def test_a_follower_needs_something_to_follow():
    source, followers = pair()
    with pytest.raises(KeyError, match="encoder_dense/kernel"):
        follow(followers, Networks({"predictor": source["predictor"]}), 0.5)
