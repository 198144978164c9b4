"""If this breaks, VICReg passes other views through other networks, or a collapse goes unseen."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.methods.vicreg import VICReg, vicreg
from simclr_tf.models.heads import mlp_projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.vicreg import VICRegLoss
from simclr_tf.optim.schedules import WarmupCosine
from tests.methods import conformance
from tests.support.findings import findings

HEAD = functools.partial(mlp_projection_head, 3, 12, 8)
FACTORY = functools.partial(vicreg, augmentation=conformance.AUGMENTATION, projection_head=HEAD)


def build(**kwargs) -> VICReg:
    keras.utils.set_random_seed(0)
    return FACTORY(encoder=conformance.tiny_encoder, image_size=16, **kwargs)


def test_a_view_has_batch_statistics_of_its_own():
    method, images = build(), conformance.batch_of(build(), 0)["images"]
    first, second = tf.split(images, 2)
    both = method.embed({"images": images}, training=True)["projection"]
    for other in (tf.concat([first, first], 0), tf.concat([first, second**2], 0)):
        found = method.embed({"images": other}, training=True)["projection"]
        np.testing.assert_array_equal(found[:8], both[:8])
        assert np.abs(found[8:] - both[8:]).max() > 1e-3
    encoder, head = method.networks.values()
    z = list(head(encoder(second, training=True)["final_avg_pool"], training=True).values())[-1]
    np.testing.assert_allclose(both[8:], z, rtol=1e-5, atol=1e-6)


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("""
        vicreg.other_augmentation = @other/augmentation
        augmentation.policy = [('blur', 1.0)]
        other/augmentation.policy = [('blur', 0.1), ('solarize', 0.2)]
        mlp_projection_head.num_layers = 3
        mlp_projection_head.hidden_dim = 6
        mlp_projection_head.output_dim = 7
        vicreg_loss.covariance = 2.0
    """)
    method = vicreg(encoder=functools.partial(resnet, 18, 0.125), image_size=32)
    assert list(method.networks["projection_head"].output) == [f"projection_{i}" for i in range(4)]
    assert method.embedded_specs["projection"].shape == (2, 7)
    crop = "random crop of 8% to 100%"
    assert method.plan_lines(256) == {
        "view 1": f"{crop}, blur 1 x 1",
        "view 2": f"{crop}, blur 0.1 x 1, solarize 0.2 x 1",
        "loss": "VICReg, 25 invariance + 25 variance + 2 covariance",
    }
    assert method.expected(256) == (pytest.approx(24.75), 0.0)
    assert method.expected(2) == (pytest.approx(24.75), pytest.approx(2 * 2 * 6))


def test_a_floor_above_the_collapsed_loss_tells_nothing():
    assert build(loss=lambda: VICRegLoss(variance=0.0)).expected(256) is None
    numbers = {"vicreg_loss": 3.0, "projection_std": 0.5}
    assert build().words(numbers) == "VICReg loss 3.000, standard deviation 0.50"


def found(step: int = 400, **numbers) -> list[str]:
    """The kinds that are found in a report, of a sound run but for `numbers`."""
    sound = {
        "vicreg_loss": 16.0,
        "invariance": 0.2,
        "projection_std": 0.8,
        "effective_rank": 20.0,
        "representation_spread": 0.3,
    }
    return findings(build(), sound | numbers, step=step, warmup_steps=100, chance=24.75)


@pytest.mark.parametrize(
    ("numbers", "kinds"),
    [
        ({}, []),
        ({"projection_std": 0.01, "invariance": 0.0}, ["collapse"]),
        ({"invariance": 1e-13}, ["identical views"]),
        ({"effective_rank": 1.1}, ["dimensions correlated"]),
        ({"effective_rank": 1.1, "step": 90}, []),
        ({"representation_spread": 0.0, "projection_std": 0.0}, ["dead encoder"]),
    ],
)
def test_rules_on_numbers(numbers, kinds):
    assert found(**numbers) == kinds


@pytest.mark.parametrize(("variance", "kinds"), [(25.0, []), (0.0, ["collapse"])])
def test_without_the_variance_term_a_run_collapses(variance, kinds):
    """As with the coefficients (25, 0, 1) in the paper."""
    run = conformance.assemble(
        functools.partial(FACTORY, loss=lambda: VICRegLoss(variance=variance)),
        learning_rate=lambda **numbers: WarmupCosine(0.01, 0, 100),
        epochs=25.0,
    )
    *_, last = conformance.train(run, range(100))
    judged = ("projection_std", "invariance", "effective_rank")
    assert found(**{name: last[name] for name in judged}) == kinds, last
