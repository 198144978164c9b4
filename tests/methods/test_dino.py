"""If this breaks, DINO's teacher is another one than it should be, or a collapse goes unseen."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.methods.dino import DINO, dino
from simclr_tf.models.dino_heads import dino_projection_head, prototypes
from simclr_tf.models.resnet import resnet
from tests.methods import conformance
from tests.support.findings import findings

MOMENTUM, CENTRE, COUNT = 0.75, 0.6, 9
FACTORY = functools.partial(
    dino,
    augmentation=conformance.AUGMENTATION,
    projection_head=functools.partial(dino_projection_head, 2, 7, 5),
    prototypes=functools.partial(prototypes, COUNT),
    small_views=2,
    small_augmentation=conformance.AUGMENTATION,
    momentum=MOMENTUM,
    centre_momentum=CENTRE,
    first_teacher_temperature=0.05,
    teacher_temperature=0.09,
    warmup_share=0.5,
    freeze_share=0.25,
)


def build(**kwargs) -> DINO:
    keras.utils.set_random_seed(0)
    arguments = {"encoder": conformance.tiny_encoder, "image_size": 16, "total_steps": 1000}
    return FACTORY(**arguments | kwargs)


def logits(networks, *images: tf.Tensor) -> np.ndarray:
    """What networks give for views of some sizes, each size by statistics of its own."""
    encoder, head, last = networks.values()
    h = [encoder(x, training=True)["final_avg_pool"] for x in images]
    z = head(tf.concat(h, axis=0), training=True)["projection_2"]
    [kernel] = last.trainable_variables
    return z.numpy() @ (kernel.numpy() / np.linalg.norm(kernel.numpy(), axis=0))


def mean_cross_entropy(student, teacher, centre, temperature) -> float:
    batch, terms = conformance.BATCH, []
    p = np.exp((np.float64(teacher) - centre) / temperature)
    q = np.exp(np.float64(student) / 0.1)
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    for a in range(2):
        for b in range(len(student) // batch):
            if a != b:
                own, other = (slice(i * batch, (i + 1) * batch) for i in (a, b))
                terms.append(-np.sum(p[own] * np.log(q[other]), axis=1))
    return np.mean(terms)


@pytest.mark.parametrize("replicas", [1, 2])
def test_three_steps_by_hand(replicas):
    """Centre and teacher of before the update; prototypes that stay for two of eight steps."""
    run = conformance.assemble(FACTORY, simulated_replicas(replicas))
    method, centre = run.method, np.zeros(COUNT)
    for step in range(3):
        kept = 1 - 0.25 * (np.cos(np.pi * step / 8) + 1) / 2
        batch = conformance.batch_of(method, step)
        alone = build()
        for to, of in ((alone.networks, method.networks), (alone.followers, method.followers)):
            for variable, value in zip(to.variables, of.variables, strict=True):
                variable.assign(value.numpy())
        student = logits(alone.networks, batch["images"], batch["small"])
        teacher = logits(alone.followers, batch["images"])
        slow = [v.numpy() for v in method.followers.trainable_variables]
        [kernel] = (v.numpy() for v in method.networks["prototypes"].variables)
        [numbers] = conformance.train(run, range(step, step + 1))
        expected = mean_cross_entropy(student, teacher, centre, 0.05 + 0.01 * step)
        np.testing.assert_allclose(numbers["dino_loss"], expected, rtol=1e-4)
        centre = CENTRE * centre + (1 - CENTRE) * teacher.mean(axis=0)
        np.testing.assert_allclose(method.state["centre"], centre, rtol=1e-4, atol=1e-6)
        fast = method.networks.trainable_variables
        for v, before, own in zip(method.followers.trainable_variables, slow, fast, strict=True):
            wanted = kept * before + (1 - kept) * own.numpy()
            np.testing.assert_allclose(v, wanted, rtol=1e-5, atol=1e-7)
        [moved] = method.networks["prototypes"].variables
        assert np.array_equal(moved, kernel) == (step < 2)


def test_each_gradient_is_clipped_by_its_own_norm():
    method = build(clip_norm=2.0)
    variables = method.networks.trainable_variables
    rng = np.random.default_rng(0)
    given = [rng.normal(size=v.shape) * 10.0 ** (i % 3 - 2) for i, v in enumerate(variables)]
    step = keras.Variable(500, dtype="int64", trainable=False)
    found = method.transform_gradients(step, [tf.constant(g, tf.float32) for g in given])
    norms = [np.linalg.norm(g) for g in given]
    assert min(norms) < 2.0 < max(norms)
    for gradient, g, norm in zip(found, given, norms, strict=True):
        np.testing.assert_allclose(gradient, g * min(1.0, 2.0 / norm), rtol=1e-4)


def test_the_start():
    method = build()
    assert list(method.followers) == [f"teacher_{name}" for name in method.networks]
    for follower, v in zip(method.followers.variables, method.networks.variables, strict=True):
        np.testing.assert_array_equal(follower, v)


@pytest.mark.parametrize(
    ("steps", "temperature"), [(0, 0.05), (250, 0.07), (500, 0.09), (900, 0.09)]
)
def test_the_temperature_warms_up(steps, temperature):
    np.testing.assert_allclose(build().temperature_after(tf.constant(steps)), temperature, 1e-6)


def test_the_prototypes_are_saved_with_their_layer(tmp_path):
    model = prototypes(4, input_dim=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    z = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(loaded(z), model(z))
    np.testing.assert_allclose(np.linalg.norm(model(z), axis=0), 1.0, rtol=1e-6)


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("""
        prototypes.count = 50
        dino_projection_head.hidden_dim = 6
        dino_loss.temperature = 0.2
        dino.teacher_temperature = 0.07
    """)
    method = dino(encoder=functools.partial(resnet, 18, 0.125), image_size=32, total_steps=1234)
    assert method.plan_lines(256) == {
        "loss": "DINO, 50 prototypes, T = 0.2",
        "teacher": "momentum 0.996, rising to 1 in 1,234 steps; T = 0.04 to 0.07",
    }
    numbers = {"dino_loss": 3.5, "loss_chance": 4.0, "teacher_entropy": 1.25}
    assert method.words(numbers) == "DINO loss 3.500 (chance 4.00), entropy 1.25"


@pytest.mark.parametrize(
    ("momentum", "steps", "kinds"),
    [
        (0.996, 250_000, []),
        (0.996, 400, ["target too slow"]),
        (1.0, 250_000, ["target too slow"]),
        (0.0, 250_000, ["teacher too fast"]),
    ],
)
def test_a_teacher_that_stays_or_is_the_student_is_a_fault(momentum, steps, kinds):
    found = [fault.kind for fault in build(momentum=momentum, total_steps=steps).faults()]
    assert found == kinds


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"momentum": 1.1}, "from 0 to 1"),
        ({"clip_norm": 0.0}, "above 0"),
        ({"small_size": 17}, "from 1 to data.image_size = 16"),
        ({"prototypes": functools.partial(prototypes, 1)}, "count=1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(RequestError, match=message):
        conformance.assemble(functools.partial(FACTORY, **setting))


@pytest.mark.parametrize(
    ("step", "entropy", "used", "kinds"),
    [
        (100, 1.0, 6.0, []),
        (100, 2.195, 8.9, ["collapse to uniform"]),
        (20, 2.195, 8.9, []),  # at the start it may be
        (100, 0.01, 1.01, ["collapse"]),
        (100, 0.01, 8.0, []),  # sure of each image, and of another for each
    ],
)
def test_both_collapses_are_found(step, entropy, used, kinds):
    numbers = {
        "dino_loss": 1.5,
        "teacher_entropy": entropy,
        "prototypes_used": used,
        "representation_spread": 0.5,
    }
    assert findings(build(), numbers, step=step, chance=np.log(COUNT)) == kinds
