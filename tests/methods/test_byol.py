"""If this breaks, BYOL predicts something else than its slow copy, or a collapse goes unseen."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.methods.byol import BYOL, byol
from simclr_tf.models.heads import mlp_projection_head, predictor
from simclr_tf.models.networks import Networks
from simclr_tf.models.resnet import resnet
from tests.methods import conformance
from tests.objectives.test_byol import oracle
from tests.support.findings import findings

MOMENTUM = 0.75
FACTORY = functools.partial(
    byol,
    augmentation=conformance.AUGMENTATION,
    projection_head=functools.partial(mlp_projection_head, 2, 7, 5),
    predictor=functools.partial(predictor, 2, 7),
    momentum=MOMENTUM,
)


def build(**kwargs) -> BYOL:
    keras.utils.set_random_seed(0)
    arguments = {"encoder": conformance.tiny_encoder, "image_size": 16, "total_steps": 1000}
    return FACTORY(**arguments | kwargs)


def exported(method: BYOL) -> Networks:
    """The online networks that the target has too."""
    return Networks(method.exported())


def moving(networks: Networks) -> list[keras.Variable]:
    """The moving statistics."""
    return [v for model in networks.values() for v in model.non_trainable_variables]


def through(networks, images: tf.Tensor) -> np.ndarray:
    """What networks give for a view, by statistics of its own."""
    x = images
    for network in networks.values():
        found = network(x, training=True)
        x = list(found.values())[-1] if isinstance(found, dict) else found
    return x.numpy()


@pytest.mark.parametrize("replicas", [1, 2])
def test_three_steps_by_hand(replicas):
    """Targets of before the update, the average of after it, and a momentum that rises to 1."""
    run = conformance.assemble(FACTORY, simulated_replicas(replicas))
    method = run.method
    assert method.total_steps == 8
    for step in range(3):
        kept = 1 - 0.25 * (np.cos(np.pi * step / 8) + 1) / 2
        views = tf.split(conformance.batch_of(method, step)["images"], 2)
        alone = build()
        for to, of in ((alone.networks, method.networks), (alone.followers, method.followers)):
            for variable, value in zip(to.variables, of.variables, strict=True):
                variable.assign(value.numpy())
        p, t = (
            np.concatenate([through(networks, view) for view in views])
            for networks in (alone.networks, alone.followers)
        )
        slow = [v.numpy() for v in method.followers.trainable_variables]
        [numbers] = conformance.train(run, range(step, step + 1))
        np.testing.assert_allclose(numbers["byol_loss"], oracle(p, t), rtol=1e-4)
        fast = exported(method).trainable_variables
        followers = method.followers.trainable_variables
        for follower, before, v in zip(followers, slow, fast, strict=True):
            wanted = kept * before + (1 - kept) * v.numpy()
            np.testing.assert_allclose(follower, wanted, rtol=1e-5, atol=1e-7)
        # The target's moving statistics are those of its own passes.
        found, expected = (moving(m.followers) for m in (method, alone))
        for follower, v in zip(found, expected, strict=True):
            np.testing.assert_allclose(follower, v, rtol=1e-4, atol=1e-6)


def test_the_start():
    method = build()
    assert list(method.followers) == ["target_encoder", "target_projection_head"]
    assert list(method.exported()) == ["encoder", "projection_head"]
    online = exported(method).variables
    for follower, variable in zip(method.followers.variables, online, strict=True):
        np.testing.assert_array_equal(follower, variable)


@pytest.mark.parametrize(("steps", "share"), [(0, 0.75), (500, 0.875), (1000, 1.0)])
def test_the_momentum_rises_to_one(steps, share):
    np.testing.assert_allclose(build().momentum_after(tf.constant(steps)), share, rtol=1e-6)


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("""
        byol.momentum = 0.99
        byol.other_augmentation = @other/augmentation
        augmentation.policy = [('blur', 1.0)]
        other/augmentation.policy = [('blur', 0.1), ('solarize', 0.2)]
        mlp_projection_head.hidden_dim = 6
        mlp_projection_head.output_dim = 7
        predictor.hidden_dim = 8
    """)
    method = byol(encoder=functools.partial(resnet, 18, 0.125), image_size=32, total_steps=1234)
    assert method.networks["predictor"].input_shape == (None, 7)
    crop = "random crop of 8% to 100%"
    assert method.plan_lines(256) == {
        "view 1": f"{crop}, blur 1 x 1",
        "view 2": f"{crop}, blur 0.1 x 1, solarize 0.2 x 1",
        "loss": "BYOL, both directions summed",
        "target": "momentum 0.99, rising to 1 in 1,234 steps",
    }
    numbers = {"byol_loss": 0.5, "loss_chance": 4.0, "embedding_std": 0.9}
    assert method.words(numbers) == "BYOL loss 0.500 (chance 4.00), spread 0.90"


@pytest.mark.parametrize(
    ("momentum", "steps", "is_fault"),
    [
        (0.996, 312_784, False),  # the paper's 1,000 epochs
        (0.996, 400, True),
        (0.98, 400, False),
        (1.0, 312_784, True),
    ],
)
def test_a_target_that_stays_at_random_weights_is_a_fault(momentum, steps, is_fault):
    kinds = [fault.kind for fault in build(momentum=momentum, total_steps=steps).faults()]
    assert kinds == ["target too slow"] * is_fault


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(RequestError, match=r"from 0 to 1\. Received: momentum=1.1"):
        conformance.assemble(functools.partial(FACTORY, momentum=1.1))


def collapsed(*, input_dim: int) -> keras.Model:
    """A head whose bias is far larger than what it projects."""
    x = keras.Input((input_dim,), name="representation")
    z = keras.layers.Dense(5, bias_initializer=keras.initializers.Constant(100.0), name="z")(x)
    return keras.Model(x, {"projection_0": x, "projection_1": z}, name="projection_head")


@pytest.mark.parametrize(
    ("changes", "kinds"), [({}, []), ({"projection_head": collapsed}, ["collapse"])]
)
def test_a_collapse_is_found_though_the_loss_is_low(changes, kinds):
    run = conformance.assemble(functools.partial(FACTORY, **changes))
    *_, numbers = conformance.train(run, range(3))
    assert findings(run.method, numbers, chance=4.0) == kinds
