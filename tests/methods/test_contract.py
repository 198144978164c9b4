"""If this breaks, who writes a method learns of a mistake from an error deep inside TensorFlow."""

import keras
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods import contract
from simclr_tf.methods.base import Method
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks
from tests.support.views import pairs

SHARE = tf.constant(2.0)


class Given(Method):
    """Returns what it is told to."""

    name = "given"
    metrics = (Metric("given_loss"), Metric("agreement"))
    embedded, found = {"representation": tf.zeros([2, 3])}, (SHARE, {"agreement": SHARE})

    def embed(self, batch, training):
        return self.embedded

    def loss(self, embedded, targets):
        return self.found


def networks(name: str = "encoder") -> Networks:
    images = keras.Input((4, 4, 3))
    return Networks({name: keras.Model(images, {"final_avg_pool": images})})


VIEWS = pairs(augmentation(policy=()), 4)
BATCH = {"labels": tf.zeros([1], tf.int32)}


def test_what_keeps_the_contract_passes():
    method = Given(networks(), VIEWS)
    representation, rest = contract.embed(method, BATCH)
    assert representation is Given.embedded["representation"] and rest == {}
    assert contract.loss(method, rest, {}) == Given.found
    assert "representation" in Given.embedded


@pytest.mark.parametrize(
    ("found", "received"),
    [
        (SHARE, r"Received: float32 \(\)\."),
        ((SHARE, {}), r"Received: \(float32 \(\), \{\}\)"),
        ((SHARE, {"agrement": SHARE}), "'agrement': float32"),
        ((tf.zeros([3]), {"agreement": SHARE}), r"float32 \(3,\)"),
        ((SHARE, {"agreement": tf.zeros([], tf.float16)}), "float16"),
        ((2.0, {"agreement": SHARE}), "float"),
    ],
)
def test_a_loss_that_breaks_it_is_described(found, received):
    method = Given(networks(), VIEWS)
    object.__setattr__(method, "found", found)
    with pytest.raises(InvalidArgument, match=rf"Given\.loss must .*\['agreement'\].*{received}"):
        contract.loss(method, {}, {})


@pytest.mark.parametrize(
    "embedded",
    [
        tf.zeros([2, 3]),
        {"projection": tf.zeros([2, 3])},
        {"representation": tf.zeros([1, 3]), "projection": tf.zeros([2, 3])},  # of one view of two
    ],
)
def test_an_embedding_without_a_representation_is_described(embedded):
    method = Given(networks(), VIEWS)
    object.__setattr__(method, "embedded", embedded)
    with pytest.raises(InvalidArgument, match=r"Given\.embed .*'representation'.*float32 \(2, 3\)"):
        contract.embed(method, BATCH)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((networks("backbone"), VIEWS), "network named 'encoder'.*'backbone'"),
        ((networks(), []), r"must request views.*views=\[\]"),
        ((networks(), VIEWS[0]), "must request views.*views=ViewGroup"),
    ],
)
def test_parts_that_are_missing_are_named(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Given(*arguments)


@pytest.mark.parametrize("missing", ["name", "metrics"])
def test_a_class_says_its_name_and_metrics(missing):
    nameless = type("Nameless", (Given,), {missing: ()})
    with pytest.raises(InvalidArgument, match=f"Nameless, which lacks {missing}"):
        nameless(networks(), VIEWS)


def test_inputs_of_the_loss_have_names_of_their_own():
    method, z, keys = Given(networks(), VIEWS), tf.zeros([2]), tf.ones([2])
    assert contract.inputs(method, {"z": z}, {"keys": keys}) == {"z": z, "keys": keys}
    with pytest.raises(InvalidArgument, match=r"Given\.embed and targets.*Received: keys by both"):
        contract.inputs(method, {"z": z, "keys": z}, {"keys": keys})
