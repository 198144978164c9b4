"""Optimizers for networks: who is decayed and adapted."""

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.networks import Networks, variable_roles
from simclr_tf.models.resnet import resnet
from simclr_tf.optim import factory
from simclr_tf.optim.lars import LARS
from simclr_tf.optim.schedules import WarmupCosine

SCHEDULE = WarmupCosine(0.1, 0, 100)


@pytest.fixture
def networks() -> Networks:
    """ResNet-18 of 8 to 64 channels, a two-layer head and a probe of three classes."""
    encoder = resnet(18, 0.125, image_size=32)
    models = {
        "encoder": encoder,
        "projection_head": projection_head(input_dim=64),
        "probe": linear_probe(3, input_dim=64),
    }
    return Networks(models, classifiers=("probe",))


def test_lars_excludes_by_role(networks):
    optimizer = factory.lars(learning_rate=SCHEDULE, networks=networks)
    assert not optimizer.built
    optimizer.build(networks.trainable_variables)
    roles = variable_roles(networks)
    trainable = [v.path for v in networks.trainable_variables]
    assert optimizer.excluded_paths == sorted(p for p in trainable if roles[p] != "kernel")
    assert "probe_dense/kernel" in optimizer.excluded_paths
    assert "projection_2_dense/kernel" not in optimizer.excluded_paths
    assert (optimizer.momentum, optimizer.l2, optimizer.eta) == (0.9, 1e-6, 0.001)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_an_impossible_momentum_is_refused(networks, value):
    with pytest.raises(InvalidArgument, match=f"Received: momentum={value}"):
        factory.momentum(value, learning_rate=SCHEDULE, networks=networks)


@pytest.mark.parametrize("name", ["momentum", "adam", "lamb"])
def test_decoupled_decay_is_of_kernels_only(networks, name):
    """With zero gradients nothing but the decay moves a variable, by 1 - rate * decay."""
    make = getattr(factory, name)
    optimizer = make(weight_decay=0.5, learning_rate=SCHEDULE, networks=networks)
    assert not optimizer.built
    optimizer.build(networks.trainable_variables)
    for variable in networks.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    optimizer.apply([tf.zeros(v.shape) for v in networks.trainable_variables])
    roles = variable_roles(networks)
    for variable in networks.trainable_variables:
        expected = 0.95 if roles[variable.path] == "kernel" else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("momentum", keras.optimizers.SGD),
        ("adam", keras.optimizers.Adam),
        ("lamb", keras.optimizers.Lamb),
    ],
)
def test_without_decay(networks, name, kind):
    optimizer = getattr(factory, name)(learning_rate=SCHEDULE, networks=networks)
    assert type(optimizer) is kind
    assert optimizer.weight_decay is None
    assert name != "momentum" or (optimizer.nesterov and optimizer.momentum == 0.9)


def test_gin_sets_hyper_parameters(networks):
    gin.parse_config("lars.weight_decay = 1e-4\nlars.momentum = 0.8")
    optimizer = factory.lars(learning_rate=SCHEDULE, networks=networks)
    assert isinstance(optimizer, LARS)
    assert (optimizer.l2, optimizer.momentum) == (1e-4, 0.8)


def test_summary(networks):
    lines = [str(line) for line in factory.exclusion_summary(networks)]
    # ResNet-18: 21 convolutions and 21 normalizations; the head 2 kernels, 2 + 1 for its norms.
    assert [line.split(", ")[0] for line in lines] == [
        "kernel: 23 variables",
        "batch_norm: 45 variables",
        "probe: 2 variables",
    ]
    assert lines[0].endswith(", adapted") and lines[1].endswith(", excluded")
    assert lines[2] == "probe: 2 variables, 195 parameters, excluded"
    total = sum(line.parameters for line in factory.exclusion_summary(networks))
    assert total == sum(np.prod(v.shape) for v in networks.trainable_variables)


def test_sgd_decays_everything(networks):
    optimizer = factory.sgd_l2(learning_rate=SCHEDULE, networks=networks)
    assert (optimizer.momentum, optimizer.l2, optimizer.nesterov) == (0.9, 1e-4, False)
    lines = factory.exclusion_summary(networks, factory.excluded_roles(optimizer))
    assert all(line.adapted for line in lines)
    lars = factory.lars(learning_rate=SCHEDULE, networks=networks)
    assert factory.excluded_roles(lars) == factory.EXCLUDED_ROLES
