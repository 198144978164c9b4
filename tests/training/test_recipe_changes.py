"""If this breaks, a new version refuses the runs of the old one, or goes on with another run."""

import pytest

from simclr_tf.training.recipe_changes import recipe_changes

DEFAULTS = {
    "pretrain.method": "@simclr",
    "resnet.depth": "50",
    "resnet.remat": "()",
    "simclr.loss": "@nt_xent",
}


def changes(saved, now):
    return dict(recipe_changes(saved, now, DEFAULTS))


@pytest.mark.parametrize(
    "now",
    [
        {"resnet.depth": "50"},
        {"resnet.depth": "50", "resnet.remat": "[]"},
        {"pretrain.method": "@simclr"},
        {"teacher/resnet.depth": "50"},
    ],
)
def test_a_parameter_that_one_side_lacks_has_its_default(now):
    assert not changes({}, now)
    assert not changes(now, {})


def test_a_newer_parameter_that_is_set_is_a_change():
    assert changes({}, {"resnet.depth": "18", "pretrain.method": "@other"}) == {
        "pretrain.method": "not set in the checkpoint, @other now",
        "resnet.depth": "not set in the checkpoint, 18 now",
    }


def test_both_values_are_told_even_of_defaults():
    assert changes({"resnet.depth": "50"}, {"resnet.depth": "18"}) == {
        "resnet.depth": "50 in the checkpoint, 18 now"
    }


def test_a_parameter_that_is_gone_is_a_change():
    words = {"resnet.kernel": "3 in the checkpoint, not a parameter of this version"}
    assert changes({"resnet.kernel": "3"}, {}) == words


@pytest.mark.parametrize(
    "now",
    [
        {},
        {"simclr.loss": "@nt_xent"},
        {"pretrain.loss": "@nt_xent"},  # an old recipe
    ],
)
def test_a_renamed_parameter_is_the_same_under_both_names(now):
    assert not changes({"pretrain.loss": "@nt_xent"}, now)
    assert not changes({"a/pretrain.loss": "@mine"}, {"a/simclr.loss": "@mine"})
    assert changes({"pretrain.loss": "@mine"}, now) == {
        "simclr.loss": f"@mine in the checkpoint, {'@nt_xent' if now else 'not set'} now"
    }
