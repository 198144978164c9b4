"""The networks together: groups, roles, values."""

import keras
import numpy as np
import pytest

from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.networks import (
    Networks,
    copy_values,
    count_parameters,
    fingerprint,
    representation_dim,
    variable_roles,
)
from simclr_tf.models.resnet import resnet


@pytest.fixture
def networks() -> Networks:
    encoder = resnet(18, 0.125, image_size=32)
    dim = representation_dim(encoder)
    return Networks(
        {
            "encoder": encoder,
            "projection_head": projection_head(output_dim=5, input_dim=dim),
            "probe": linear_probe(3, input_dim=dim),
        },
        classifiers=("probe",),
    )


def test_groups_and_variables(networks):
    assert list(networks) == ["encoder", "projection_head", "probe"] and len(networks) == 3
    paths = [v.path for v in networks.variables]
    assert len(paths) == len(set(paths)) == len(variable_roles(networks))
    assert paths == [v.path for model in networks.values() for v in model.variables]
    assert {v.path for v in networks.trainable_variables} == {
        path for path in paths if "moving" not in path
    }
    assert count_parameters(networks) == sum(map(count_parameters, networks.values()))


def test_joined_networks_are_those_of_both_in_their_order(networks):
    alone = Networks({name: networks[name] for name in ("encoder", "projection_head")})
    probe = Networks({"probe": networks["probe"]}, classifiers=("probe",))
    joined = alone | probe
    assert list(joined.items()) == list(networks.items())
    assert joined.classifiers == ("probe",) and alone.classifiers == ()
    assert [v.path for v in joined.variables] == [v.path for v in networks.variables]
    assert list((alone | Networks({})).items()) == list(alone.items())


def test_a_name_stands_for_one_network(networks):
    with pytest.raises(ValueError, match="Received twice: probe"):
        networks | Networks({"probe": networks["probe"]})


def test_a_classifier_must_be_one_of_the_networks(networks):
    with pytest.raises(ValueError, match="Received: probes; the models are encoder, "):
        Networks(networks, classifiers=("probes",))


def dense(value: float) -> Networks:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))
    model.set_weights([np.full_like(w, value) for w in model.get_weights()])
    return Networks({"model": model})


def test_values_are_copied_by_path_and_told_by_the_fingerprint():
    source, target = dense(1.0), dense(2.0)
    assert fingerprint(source.values()) != fingerprint(target.values())
    copy_values(source, target)
    assert fingerprint(source.values()) == fingerprint(target.values())
    for variable in target.variables:
        np.testing.assert_array_equal(variable, np.ones(variable.shape))


def test_roles(networks):
    roles = variable_roles(networks)
    assert roles["stem_conv/kernel"] == "kernel"
    assert roles["block_group1_block1_shortcut_bn/moving_variance"] == "batch_norm"
    assert roles["projection_2_bn/gamma"] == "batch_norm"
    assert roles["projection_2_dense/kernel"] == "kernel"
    assert roles["probe_dense/kernel"] == roles["probe_dense/bias"] == "probe"
    assert variable_roles(networks["probe"]) == {
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
    with pytest.raises(ValueError, match="Received twice: dense/kernel"):
        variable_roles(Networks({"one": dense(0.0)["model"], "other": dense(0.0)["model"]}))
