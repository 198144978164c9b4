"""If this breaks, PIRL compares with another memory than the image's own, or misses a fault."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.patches import shuffled_patches
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import InvalidArgument, RequestError
from simclr_tf.methods.memory_bank import rows_to_compare
from simclr_tf.methods.pirl import PIRL, pirl
from simclr_tf.models.heads import plain_projection_head
from simclr_tf.models.patch_head import patch_projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.memory_nce import MemoryNCE
from simclr_tf.training.step import gradients_at_once
from tests.methods import conformance
from tests.objectives import test_memory_nce
from tests.support.findings import findings

K, P, TEMPERATURE, MOMENTUM, IMAGES = test_memory_nce.K, 5, 0.3, 0.75, 32
FACTORY = functools.partial(
    pirl,
    augmentation=conformance.AUGMENTATION,
    patches=functools.partial(shuffled_patches, policy=(), cell=10, patch=8),
    projection_head=functools.partial(plain_projection_head, 1, output_dim=P),
    patch_head=functools.partial(patch_projection_head, patch_dim=4, output_dim=P),
    loss=lambda: MemoryNCE(TEMPERATURE, K),
    momentum=MOMENTUM,
)


def build(**kwargs) -> PIRL:
    keras.utils.set_random_seed(0)
    sizes = {"image_size": 16, "total_steps": 8, "num_examples": IMAGES}
    return FACTORY(encoder=conformance.tiny_encoder, **sizes | kwargs)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def outputs(method: PIRL, batch: dict) -> tuple[np.ndarray, np.ndarray]:
    """g of the patches and f of the images, by a copy that alone sees the batch."""
    alone = build()
    for variable, value in zip(alone.networks.variables, method.networks.variables, strict=True):
        variable.assign(value.numpy())
    found = alone.embed(batch, training=True)
    return found["patches"].numpy(), found["image"].numpy()


@pytest.mark.parametrize("replicas", [1, 2])
def test_three_steps_by_hand(replicas, monkeypatch):
    """The bank of before the step; Z of the first batch; rows that move by the old networks."""
    monkeypatch.setattr(test_memory_nce, "N", IMAGES)
    run = conformance.assemble(FACTORY, simulated_replicas(replicas))
    method, z = run.method, None
    for step in range(3):
        batch = conformance.batch_of(method, step)
        index, bank = batch["index"].numpy(), method.state["bank"].numpy()
        both = np.stack(outputs(method, batch))
        rows = np.stack(
            [
                rows_to_compare(index, tf.constant(step), images=IMAGES, negatives=K, head=head)
                for head in range(2)
            ]
        )
        if step == 0:
            scores = np.sum(unit(both[0])[:, np.newaxis] * bank[rows[0]], axis=2)
            z = np.mean(np.exp(scores / TEMPERATURE))
        [numbers] = conformance.train(run, range(step, step + 1))
        expected = test_memory_nce.oracle(both, bank, rows, TEMPERATURE, z * IMAGES)
        for name, value in expected.items():
            np.testing.assert_allclose(numbers[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
        bank[index] = unit(MOMENTUM * bank[index] + (1 - MOMENTUM) * unit(both[1]))
        np.testing.assert_allclose(method.state["bank"], bank, atol=1e-5)
        np.testing.assert_allclose(method.state["partition"], z, rtol=1e-5)
        assert method.state["batches"].numpy() == step + 1


def test_an_image_twice_in_a_global_batch_is_alike_on_any_replicas():
    """At the seam of two epochs, and once on each of two replicas."""

    def bank_after(replicas: int) -> np.ndarray:
        run = conformance.assemble(FACTORY, simulated_replicas(replicas))
        size = conformance.BATCH // replicas
        twice = tf.constant([3, 5, 5, 9, 1, 3, 3, 2])

        def own(context):
            part = conformance.batch_of(run.method, 0, context.replica_id_in_sync_group, replicas)
            first = context.replica_id_in_sync_group * size
            return part | {"index": twice[first : first + size]}

        batch = run.strategy.experimental_distribute_values_from_function(own)
        tf.function(lambda: run.strategy.run(run.train_step(), (batch,)))()
        return conformance.values(run)["method/bank"]

    alone = bank_after(1)
    np.testing.assert_allclose(bank_after(2), alone, atol=1e-6)
    before = build().state["bank"].numpy()
    moved = np.flatnonzero(np.abs(alone - before).max(axis=1) > 1e-4)
    np.testing.assert_array_equal(moved, [1, 2, 3, 5, 9])


def test_g_sees_each_patch_of_its_own_image_in_order():
    method = build()
    encoder, _, head = method.networks.values()
    batch = conformance.batch_of(method, 0)
    found = method.embed(batch, training=False)["patches"].numpy()
    [by_patch, patch_bias, joint, bias] = (v.numpy() for v in head.variables)
    views = np.split(batch["patches"].numpy(), 9)
    for i in range(conformance.BATCH):
        parts = [
            encoder(view[i : i + 1])["final_avg_pool"] @ by_patch + patch_bias for view in views
        ]
        expected = np.concatenate(parts, axis=1) @ joint + bias
        np.testing.assert_allclose(found[i : i + 1], expected, rtol=1e-4, atol=1e-5)


def test_patches_and_images_are_passes_of_their_own():
    """Neither is normalized by the other's statistics."""
    method = build()
    batch = conformance.batch_of(method, 0)
    found = method.embed(batch, training=True)
    other = method.embed(batch | {"patches": batch["patches"] ** 2}, training=True)
    np.testing.assert_array_equal(other["image"], found["image"])
    assert not np.allclose(other["patches"], found["patches"])


def test_an_image_and_its_patches_are_never_compared_directly():
    """The gradient by one output does not depend on the other."""
    method = build()
    batch = conformance.batch_of(method, 0)
    method.state["partition"].assign(2.0)
    found = method.embed(batch, training=True)
    targets = method.targets(batch)

    def slopes(image, patches):
        with tf.GradientTape() as tape:
            tape.watch([image, patches])
            share, _ = method.loss({"image": image, "patches": patches}, targets)
        return tape.gradient(share, [image, patches])

    by_image, by_patches = slopes(found["image"], found["patches"])
    np.testing.assert_allclose(slopes(found["image"], -found["patches"])[0], by_image, rtol=1e-5)
    np.testing.assert_allclose(slopes(-found["image"], found["patches"])[1], by_patches, rtol=1e-5)


def test_infonce_has_no_constant():
    method = build(loss=lambda: MemoryNCE(0.1, K, "cross_entropy"))
    assert set(method.state) == {"bank", "batches"}
    numbers, _, _ = gradients_at_once(method, conformance.batch_of(method, 0))
    assert 0 < float(numbers["pirl_loss"]) < 3 * np.log(1 + K)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"momentum": 1.1}, "0 <= momentum <= 1"),
        ({"num_examples": 31}, "a row for each image.*num_examples=31.*32 images"),
        (
            {"patch_head": functools.partial(patch_projection_head, output_dim=4)},
            "same output_dim|dimension of the bank.*5 by pirl.projection_head and 4",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, words):
    def factory(*, encoder, image_size, total_steps, num_examples):
        arguments = {"num_examples": num_examples, "total_steps": total_steps} | settings
        return FACTORY(encoder=encoder, image_size=image_size, **arguments)

    with pytest.raises((RequestError, InvalidArgument), match=words):
        conformance.assemble(factory)


def test_an_encoder_of_one_size_is_refused():
    def fixed(*, image_size):
        inputs = keras.Input((image_size, image_size, 3))
        return keras.Model(
            inputs, {"final_avg_pool": keras.layers.GlobalAveragePooling2D()(inputs)}
        )

    with pytest.raises(RequestError, match="the size that the encoder takes, 16 pixels"):
        conformance.assemble(FACTORY, encoder=fixed)


def test_a_temperature_out_of_range_is_a_fault():
    [fault] = build(loss=lambda: MemoryNCE(3.0, K)).faults()
    assert fault.kind == "temperature out of range"
    assert not build().faults()


def found(epochs: float = 10.0, momentum: float = 0.5, **fields) -> list[str]:
    """The kinds that are found in a run of so many epochs of the paper's loss on 1,000 images.

    Its numbers and facts are those of a sound one but for `fields`.
    """
    numbers = {
        "pirl_loss": 6.0,
        "patch_loss": 7.0,
        "image_loss": 5.0,
        "embedding_std": 0.9,
        "representation_spread": 0.5,
        "learning_rate": 0.1,
    }
    numbers |= {name: fields.pop(name) for name in numbers.keys() & fields.keys()}
    facts = {"step": 300, "epoch": 3.0, "global_batch_size": 10, "chance": 11.37}
    facts |= {"progress": 0.5, "progress_before": 0.4, "best_progress": 0.5}
    method = build(
        loss=MemoryNCE, momentum=momentum, num_examples=1000, total_steps=int(100 * epochs)
    )
    return findings(method, numbers, **{**facts, **fields})


STUCK = {"pirl_loss": 11.4, "image_loss": 11.4, "patch_loss": 11.4}
STUCK |= {"progress": 0.0, "progress_before": 0.0, "best_progress": 0.01}
LOST = {"progress": 0.1, "progress_before": 0.2, "best_progress": 0.5}


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, []),
        (STUCK, ["no learning"]),
        (STUCK | {"epoch": 1.5}, []),  # as while images replace random rows
        (STUCK | {"progress_before": -0.1}, []),
        (LOST, ["learning rate too high"]),
        ({"embedding_std": 0.05}, ["collapse"]),
        ({"embedding_std": 0.05, "epoch": 0.5}, []),  # as an untrained encoder's outputs
        ({"patch_loss": 11.3}, ["patches not learned"]),
        ({"patch_loss": 11.3, "image_loss": 11.0}, []),
        ({"representation_spread": 0.0}, ["dead encoder"]),
    ],
)
def test_rules_on_numbers(fields, kinds):
    assert found(**fields) == kinds


@pytest.mark.parametrize(
    ("epochs", "momentum", "is_fault"),
    [
        (800.0, 0.5, False),  # the paper's
        (2.0, 0.5, False),  # which keeps a quarter of a random row
        (1.0, 0.5, True),
        (10.0, 0.95, True),
        (100.0, 0.95, False),
        (100.0, 1.0, True),
    ],
)
def test_a_memory_must_become_the_images_own(epochs, momentum, is_fault):
    assert found(epochs, momentum, epoch=0.5) == ["memory too slow"] * is_fault


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("memory_nce.temperature = 0.1\nmemory_nce.negatives = 64\npirl.momentum = 0.4")
    gin.parse_config("memory_nce.form = 'cross_entropy'\nplain_projection_head.num_layers = 1")
    gin.parse_config("shuffled_patches.cell = 12\nshuffled_patches.patch = 8")
    gin.parse_config("shuffled_patches.policy = (('flip', 0.5),)")
    gin.parse_config("augmentation.policy = (('grayscale', 0.2),)")
    method = pirl(
        encoder=functools.partial(resnet, 18, 0.125),
        image_size=32,
        total_steps=8,
        num_examples=100,
    )
    assert list(method.networks) == ["encoder", "projection_head", "patch_head"]
    assert list(method.networks["projection_head"].output) == ["projection_0", "projection_1"]
    assert list(method.exported()) == ["encoder", "projection_head"]
    assert [(group.name, group.count, group.size) for group in method.views] == [
        ("images", 1, 32),
        ("patches", 9, 8),
    ]
    assert method.plan_lines(20) == {
        "view": "random crop of 8% to 100%, grayscale 0.2 x 1",
        "patches": "random crop of 60% to 100%, 9 patches of 8 pixels in cells of 12, flip 0.5 x 1",
        "loss": "InfoNCE, temperature 0.1, 64 negatives of the bank",
        "bank": "100 rows of 128, momentum 0.4",
    }
