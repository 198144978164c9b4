"""The parts together: forward pass, groups, roles."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.models.simclr import (
    SimCLR,
    count_parameters,
    forward,
    representation_dim,
    variable_roles,
)


@pytest.fixture
def simclr() -> SimCLR:
    encoder = resnet(18, 0.125, image_size=32)
    dim = representation_dim(encoder)
    return SimCLR(
        encoder, projection_head(output_dim=5, input_dim=dim), linear_probe(3, input_dim=dim)
    )


def images(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(count, 32, 32, 3)).astype(np.float32)


def test_forward(simclr):
    outputs = forward(simclr, images(), training=True)
    assert [tuple(out.shape) for out in outputs] == [(8, 64), (8, 5), (8, 3)]
    assert all(out.dtype == tf.float32 for out in outputs)


def test_forward_without_probe(simclr):
    outputs = forward(SimCLR(simclr.encoder, simclr.projection_head), images(), training=False)
    assert outputs.probe_logits is None


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_forward_takes_the_last_projection(simclr, kind):
    head = projection_head(kind, output_dim=5, input_dim=64)
    outputs = forward(SimCLR(simclr.encoder, head), images(), training=False)
    assert outputs.projection.shape == (8, 64 if kind == "none" else 5)


def test_training_moves_the_statistics_and_inference_does_not(simclr):
    moving = [v for v in simclr.variables if "moving" in v.name]
    before = [v.numpy() for v in moving]
    forward(simclr, images(), training=False)
    assert all(np.array_equal(v, b) for v, b in zip(moving, before, strict=True))
    forward(simclr, images(), training=True)
    assert not any(np.array_equal(v, b) for v, b in zip(moving, before, strict=True))


def test_probe_does_not_teach_the_encoder(simclr):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(forward(simclr, images(), training=True).probe_logits))
    gradients = tape.gradient(loss, [v.value for v in simclr.trainable_variables])
    taught = [
        v.path
        for v, gradient in zip(simclr.trainable_variables, gradients, strict=True)
        if gradient is not None
    ]
    assert taught == ["probe_dense/kernel", "probe_dense/bias"]


def test_groups_and_variables(simclr):
    assert list(simclr.groups()) == ["encoder", "projection_head", "probe"]
    assert list(SimCLR(simclr.encoder, simclr.projection_head).groups()) == [
        "encoder",
        "projection_head",
    ]
    paths = [v.path for v in simclr.variables]
    assert len(paths) == len(set(paths)) == len(variable_roles(simclr))
    assert {v.path for v in simclr.trainable_variables} == {
        path for path in paths if "moving" not in path
    }
    assert count_parameters(simclr) == sum(map(count_parameters, simclr.groups().values()))


def test_roles(simclr):
    roles = variable_roles(simclr)
    assert roles["stem_conv/kernel"] == "kernel"
    assert roles["block_group1_block1_shortcut_bn/moving_variance"] == "batch_norm"
    assert roles["projection_2_bn/gamma"] == "batch_norm"
    assert roles["projection_2_dense/kernel"] == "kernel"
    assert roles["probe_dense/kernel"] == roles["probe_dense/bias"] == "probe"
    assert variable_roles(simclr.probe) == {
        "probe_dense/kernel": "kernel",
        "probe_dense/bias": "bias",
    }


def test_roles_come_from_layers_not_from_names():
    """Names that would mislead a rule on names; a model in a model; a normalization of Keras."""
    inner = keras.Sequential(
        name="inner",
        layers=[
            keras.Input((4,)),
            keras.layers.Dense(4, name="bn_gamma"),
            keras.layers.BatchNormalization(name="dense_kernel"),
        ],
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="probe_bias")(inner(inputs)))
    assert variable_roles(model) == {
        "inner/bn_gamma/kernel": "kernel",
        "inner/bn_gamma/bias": "bias",
        "inner/dense_kernel/gamma": "batch_norm",
        "inner/dense_kernel/beta": "batch_norm",
        "inner/dense_kernel/moving_mean": "batch_norm",
        "inner/dense_kernel/moving_variance": "batch_norm",
        "probe_bias/kernel": "kernel",
        "probe_bias/bias": "bias",
    }


def test_roles_reject_two_variables_of_one_path():
    def dense():
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(4, name="same")(inputs))

    with pytest.raises(ValueError, match="Received twice: same/kernel"):
        variable_roles(SimCLR(dense(), dense()))
