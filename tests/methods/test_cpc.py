"""If this breaks, CPC compares other patches than it says, or says nothing of wrong settings."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.ops import policy_op
from simclr_tf.errors import InvalidArgument, RequestError
from simclr_tf.methods.cpc import CPC, cpc
from simclr_tf.models.context import context_network
from simclr_tf.models.patches import patch_encoder
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.cpc import CPCLoss
from tests.methods import conformance
from tests.support.findings import findings
from tests.support.small_resnet import SMALL_DEPTH

SMALL = functools.partial(resnet, SMALL_DEPTH, 0.125, normalization="layer_norm")
CONTEXT = functools.partial(context_network, 2, 8, 5)
FACTORY = functools.partial(cpc, augmentation=conformance.AUGMENTATION, context_network=CONTEXT)
# A grid of 5 x 5 patches, the second of which touches the first one's end.
SIDE, IMAGE = 5, 24


def patches_of(network) -> functools.partial:
    return functools.partial(patch_encoder, 8, 4, network)


def build(**kwargs) -> CPC:
    keras.utils.set_random_seed(0)
    kwargs = {"encoder": patches_of(SMALL), "image_size": IMAGE, **kwargs}
    return FACTORY(**kwargs)


def batch(count: int = 3) -> dict:
    images = np.random.default_rng(0).random((count, IMAGE, IMAGE, 3), np.float32)
    return {"images": tf.constant(images), "index": tf.constant([5, 9, 700][:count])}


def test_patches_keep_their_places():
    """Without augmentation a step sees what the exported encoder sees."""
    method, images = build(patch_policy=()), batch()
    encoder, context = method.networks.values()
    expected = encoder(images["images"])
    found = method.embed(images, training=True)
    np.testing.assert_allclose(found["representation"], expected["final_avg_pool"], rtol=1e-5)
    predicted = context(expected["patch_grid"])
    for name in ("predictions", "targets"):
        np.testing.assert_allclose(found[name], predicted[name], rtol=1e-4, atol=1e-5)
    loss, _ = CPCLoss()(found["predictions"], found["targets"])
    assert method.loss(found, {})[0] == loss


def seen_by(method: CPC, images: dict) -> np.ndarray:
    """The patches that the network of a patch is given, [B, g, g, p, p, 3]."""
    network, given = method.networks["encoder"].get_layer("encoder"), []
    called = type(network).__call__

    def call(self, x, **kwargs):
        if self is network:
            given.append(x.numpy())
        return called(self, x, **kwargs)

    type(network).__call__ = call
    try:
        method.embed(images, training=True)
    finally:
        type(network).__call__ = called
    [patches] = given
    return patches.reshape(-1, SIDE, SIDE, *patches.shape[1:])


def test_each_patch_is_augmented_by_itself():
    """By draws of the update, the image's number and the place; not by the rest of the batch."""
    method, images = build(patch_policy=(("flip", 0.5),)), batch()
    plain, flipped = seen_by(build(patch_policy=()), images), seen_by(method, images)
    is_flipped = (flipped != plain).any(axis=(3, 4, 5))
    mirrored = plain[..., ::-1, :]
    np.testing.assert_array_equal(
        flipped, np.where(is_flipped[..., None, None, None], mirrored, plain)
    )
    keys = random_keys.example_keys(0, 0, images["index"][:, None], tf.range(SIDE**2))
    draws = random_keys.uniform(tf.reshape(keys, [-1, 2]), 1, 1)
    np.testing.assert_array_equal(is_flipped.ravel(), draws[:, 0] < 0.5)
    assert 0.3 < is_flipped.mean() < 0.7
    alone = seen_by(method, {name: x[1:2] for name, x in images.items()})
    np.testing.assert_array_equal(alone[0], flipped[1])
    method.state["updates"].assign(1)
    assert (seen_by(method, images) != flipped).any()


def test_a_step_counts_and_clips():
    run = conformance.assemble(
        functools.partial(FACTORY, loss=lambda: CPCLoss(offsets=(1,)), clip_norm=1e-3),
        encoder=patches_of(SMALL),
    )
    conformance.train(run, range(2))
    assert run.method.state["updates"].numpy() == 2
    gradients = [tf.constant([3.0, 4.0]), tf.constant([[3e-4, 4e-4]])]
    clipped = run.method.transform_gradients(None, gradients)
    np.testing.assert_allclose(clipped[0], [6e-4, 8e-4], rtol=1e-5)
    np.testing.assert_array_equal(clipped[1], gradients[1])
    assert build(clip_norm=None).transform_gradients(None, gradients) is gradients


@pytest.mark.slow
def test_the_loss_falls_to_what_can_be_predicted():
    """Images of stripes that go on in all directions: a patch tells what the next ones show."""
    method = build(loss=lambda: CPCLoss(offsets=(2,)), patch_policy=())
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(method.networks.trainable_variables)
    rng = np.random.default_rng(0)
    colours = tf.constant(rng.random((16, 1, 1, 3)), tf.float32)
    images = {"images": tf.tile(colours, [1, IMAGE, IMAGE, 1]), "index": tf.range(16)}

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss, numbers = method.loss(method.embed(images, training=True), {})
        variables = method.networks.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]))
        return loss, numbers["prediction_in_image"]

    for _ in range(60):
        loss, in_image = step()
    # All patches of an image are alike: the image is found, and no place in it.
    chance, _ = method.expected(16)
    assert in_image > 0.8 and loss < chance - 4 * 0.8 * np.log(16)
    assert loss > 4 * 0.99 * np.log(SIDE**2)


def test_settings_that_show_the_way_are_faults():
    assert not build().faults()
    normalized = functools.partial(resnet, SMALL_DEPTH, 0.125)
    [fault] = build(encoder=patches_of(normalized)).faults()
    assert fault.kind == "batch norm leaking"
    [fault] = build(loss=lambda: CPCLoss(offsets=(1, 2))).faults()
    assert fault.kind == "predicted patches overlap" and "shares 4 rows" in fault.text
    assert "below 2" in fault.text
    # The paper's patches, of which the third next one is the first without common pixels.
    paper = {"encoder": functools.partial(patch_encoder, 80, 36, SMALL), "image_size": 260}
    assert not build(**paper, loss=lambda: CPCLoss(offsets=(3,))).faults()
    [fault] = build(**paper, loss=lambda: CPCLoss(offsets=(2,))).faults()
    assert "below 3" in fault.text


@policy_op("backwards", max_strength=None, compiles=False)
def backwards(images, keys, *, op, probability=0.5, strength=1.0):
    return images


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": SMALL}, "needs an encoder of patches"),
        ({"loss": lambda: CPCLoss(offsets=(5,))}, r"below the number of patches in a row, 5"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"patch_policy": (("backwards", 0.5),)}, "that XLA compiles.*backwards"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, words):
    with pytest.raises(InvalidArgument, match=words):
        build(**settings)


@pytest.mark.parametrize("groups", [3, 16])
def test_groups_divide_the_batch(groups):
    with pytest.raises(RequestError, match=f"negative_groups={groups}, with 8 images"):
        conformance.assemble(
            functools.partial(FACTORY, loss=lambda: CPCLoss(offsets=(1,), negative_groups=groups)),
            encoder=patches_of(SMALL),
        )


def found(**fields) -> list[str]:
    """The kinds that are found in a run of batches of 512, sound but for `fields`."""
    numbers = {
        "cpc_loss": 8.0,
        "prediction_top1": 0.4,
        "prediction_in_image": 0.8,
        "representation_spread": 0.3,
        "learning_rate": 2e-4,
    }
    numbers |= {name: fields.pop(name) for name in numbers.keys() & fields.keys()}
    facts = {"step": 2000, "epoch": 1.2, "global_batch_size": 512, "chance": 25.4}
    facts |= {"progress": 0.7, "progress_before": 0.6, "best_progress": 0.7}
    return findings(build(), numbers, **{**facts, **fields})


STUCK = {"cpc_loss": 25.4, "progress": 0.0, "progress_before": 0.0, "best_progress": 0.0}


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, []),
        (STUCK, ["no learning"]),
        (STUCK | {"epoch": 0.9}, []),  # as before it has learned anything
        ({"cpc_loss": 20.0, "progress": 0.2}, ["learning rate too high"]),
        ({"prediction_top1": 0.995, "epoch": 0.8}, ["augmentation off"]),
        ({"prediction_top1": 0.995}, []),
        ({"prediction_top1": 0.995, "epoch": 0.8, "global_batch_size": 4}, []),
        ({"representation_spread": 0.0}, ["dead encoder"]),
    ],
)
def test_rules_on_numbers(fields, kinds):
    assert found(**fields) == kinds


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("""
        patch_encoder.patch_size = 8
        patch_encoder.stride = 4
        resnet.depth = 18
        resnet.width_multiplier = 0.125
        resnet.normalization = 'layer_norm'
        cpc.patch_policy = [('flip', 0.5), ('color_drop', 0.25)]
        cpc_loss.directions = ('down', 'left')
        cpc_loss.offsets = (2, 3)
        cpc_loss.negative_groups = 4
        context_network.hidden_dim = 12
        context_network.target_dim = 7
    """)
    method = cpc(encoder=patch_encoder, image_size=32)
    assert list(method.exported()) == ["encoder"]
    assert method.embedded_specs["predictions"].shape == (1, 7, 7, 2, 2 * 7)
    assert method.expected(64) == (pytest.approx(4 * np.log(16 * 49)), 0.0)
    assert method.plan_lines(64) == {
        "patches": "7 x 7 of 8 pixels, 4 apart; flip 0.5 x 1, color_drop 0.25 x 1",
        "loss": "InfoNCE of the patches 2, 3 further down, left, among the 784 of 16 images",
    }
    numbers = {"cpc_loss": 1.5, "loss_chance": 26.66, "prediction_top1": 0.25}
    assert method.words(numbers) == "CPC loss 1.500 (chance 26.66), patches found 25.0%"
