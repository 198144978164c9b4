"""If this breaks, queries are compared with other keys than MoCo's, or find them by their batch."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.methods.moco import MoCo, moco
from simclr_tf.models.heads import plain_projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.preflight.flop import training_flop
from tests.methods import conformance
from tests.objectives.test_info_nce import oracle
from tests.support.findings import findings

K, P, TEMPERATURE, MOMENTUM = 20, 5, 0.2, 0.75
FACTORY = functools.partial(
    moco,
    augmentation=conformance.AUGMENTATION,
    projection_head=functools.partial(plain_projection_head, output_dim=P),
    queue_size=K,
    momentum=MOMENTUM,
    batch_norm_groups=2,
)


def build(**kwargs) -> MoCo:
    keras.utils.set_random_seed(0)
    return FACTORY(encoder=conformance.tiny_encoder, image_size=16, **kwargs)


def plain_encoder(*, image_size: int) -> keras.Model:
    """Without batch normalization, so that an image's key depends on that image alone."""
    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Conv2D(6, 3, 2, activation="sigmoid", name="conv")(images)
    h = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    return keras.Model(images, {"final_avg_pool": h}, name="encoder")


def projected(encoder: keras.Model, head: keras.Model, images: tf.Tensor) -> np.ndarray:
    return list(head(encoder(images)["final_avg_pool"]).values())[-1].numpy()


@pytest.mark.parametrize("replicas", [1, 2])
def test_three_steps_by_hand(replicas):
    """Keys of before the update, the old queue as negatives, the average of after the update."""
    run = conformance.assemble(FACTORY, simulated_replicas(replicas), encoder=plain_encoder)
    method = run.method
    for step in range(3):
        queue = method.state["queue"].numpy()
        views = tf.split(conformance.batch_of(method, step)["images"], 2)
        queries = projected(*method.networks.values(), views[0])
        keys = projected(*method.followers.values(), views[1])
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        slow = [v.numpy() for v in method.followers.trainable_variables]
        [numbers] = conformance.train(run, range(step, step + 1))
        expected = oracle(queries, keys, queue, TEMPERATURE)
        for name, value in expected.items():
            np.testing.assert_allclose(numbers[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        now = np.concatenate([keys, queue])[:K]
        np.testing.assert_allclose(method.state["queue"], now, atol=1e-5)
        assert method.state["batches"].numpy() == step + 1
        fast = method.networks.trainable_variables
        for follower, before, v in zip(
            method.followers.trainable_variables, slow, fast, strict=True
        ):
            wanted = MOMENTUM * before + (1 - MOMENTUM) * v.numpy()
            np.testing.assert_allclose(follower, wanted, rtol=1e-5, atol=1e-7)


def test_the_start():
    """Followers are equal; the queue is random directions by the run's seed."""
    first, again = build(), build()
    for follower, variable in zip(first.followers.variables, first.networks.variables, strict=True):
        np.testing.assert_array_equal(follower, variable)
    queue = first.state["queue"].numpy()
    np.testing.assert_array_equal(queue, again.state["queue"])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1.0, rtol=1e-5)
    assert np.abs(queue.mean(0)).max() < 4 / np.sqrt(K * P)
    keras.utils.set_random_seed(1)
    other = FACTORY(encoder=conformance.tiny_encoder, image_size=16)
    assert not np.array_equal(queue, other.state["queue"])


def mates(outputs, images: np.ndarray) -> list[frozenset[int]]:
    """The groups in which images [n, ...] are normalized: whose outputs change with an image's."""
    before, found = outputs(images), []
    for i in range(len(images)):
        changed = images.copy()
        changed[i] = changed[i] ** 2
        differs = np.abs(outputs(changed) - before).max(axis=1) > 1e-6
        found.append(frozenset(np.flatnonzero(differs)))
    return found


def test_a_query_and_its_key_have_different_mates():
    method = build()
    images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)

    def queries(images):
        batch = {"images": tf.concat([images, images], axis=0)}
        return method.embed(batch, training=True)["queries"].numpy()

    def keys(images):
        return method.targets({"images": tf.concat([images, images], axis=0)})["keys"].numpy()

    assert set(mates(queries, images)) == {frozenset(range(4)), frozenset(range(4, 8))}
    seen = []
    for batches in range(3):
        method.state["batches"].assign(batches)
        groups = set(mates(keys, images))
        assert sorted(map(len, groups)) == [4, 4] and frozenset.union(*groups) == set(range(8))
        seen.append(groups)
    assert seen[0] != seen[1] != seen[2]


def test_statistics_of_the_whole_batch_are_a_fault():
    shared = build(batch_norm_groups=1)
    [fault] = shared.faults()
    assert fault.kind == "batch norm leaking"
    assert "no learning" not in {rule.kind for chain in shared.rules() for rule in chain}
    assert not build().faults()
    keras.utils.set_random_seed(0)
    assert not FACTORY(encoder=plain_encoder, image_size=16, batch_norm_groups=1).faults()


def test_a_temperature_out_of_range_is_a_fault():
    gin.parse_config("info_nce.temperature = 3.0")
    [fault] = build().faults()
    assert fault.kind == "temperature out of range"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"queue_size": 7}, r"at least the batch.*queue_size=7, with batches of 8"),
        ({"queue_size": 33}, r"at most the number of images.*queue_size=33, with 32 images"),
        ({"batch_norm_groups": 3}, r"must divide.*batch_norm_groups=3, with 8 images"),
        ({"queue_size": 0}, "queue_size >= 1"),
        ({"momentum": 1.1}, "0 <= momentum <= 1"),
        ({"batch_norm_groups": 0}, "batch_norm_groups >= 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, words):
    with pytest.raises(RequestError, match=words):
        conformance.assemble(functools.partial(FACTORY, **settings))


def test_groups_of_a_microbatch():
    with pytest.raises(RequestError, match="batch_norm_groups=4, with 2 images"):
        conformance.assemble(functools.partial(FACTORY, batch_norm_groups=4), microbatch_size=2)


def found(queue_size: int = 65_536, momentum: float = 0.999, **fields) -> list[str]:
    """The kinds that are found in a sound run of batches of 256, when the queue was filled often.

    Its numbers and facts are as usual but for `fields`.
    """
    numbers = {
        "contrastive_loss": 7.0,
        "contrastive_top1": 0.5,
        "positive_cosine": 0.8,
        "representation_spread": 0.5,
    }
    numbers |= {name: fields.pop(name) for name in numbers.keys() & fields.keys()}
    facts = {"step": 2000, "epoch": 0.4, "global_batch_size": 256, "chance": 11.09}
    facts |= {"progress": 0.4, "progress_before": 0.35, "best_progress": 0.99}
    method = build(queue_size=queue_size, momentum=momentum)
    return findings(method, numbers, **{**facts, **fields})


STUCK = {"contrastive_loss": 11.08, "progress": 0.001, "progress_before": 0.002}


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, []),
        (STUCK, ["no learning"]),
        (STUCK | {"step": 700}, []),  # as while keys replace random vectors
        (STUCK | {"progress_before": -0.1}, []),
        ({"contrastive_top1": 1.0}, ["augmentation off"]),
        ({"contrastive_top1": 1.0, "step": 200}, []),  # random vectors are no keys
        ({"contrastive_top1": 1.0, "positive_cosine": 1.0}, ["identical views"]),
        ({"representation_spread": 0.0}, ["dead encoder"]),
    ],
)
def test_rules_on_numbers(fields, kinds):
    assert found(**fields) == kinds


@pytest.mark.parametrize(
    ("queue_size", "momentum", "is_fault"),
    [
        (65_536, 0.999, False),  # the papers' settings
        (4_096, 0.9, False),
        (4_096, 0.99, False),
        (4_096, 0.0, True),  # fails in the paper, section 4.1
        (65_536, 0.99, True),
    ],
)
def test_keys_should_not_be_older_than_their_encoder(queue_size, momentum, is_fault):
    assert found(queue_size, momentum) == ["keys outdated"] * is_fault


def test_gin_binds_its_parts_and_the_plan_says_so():
    gin.parse_config("info_nce.temperature = 0.07\nmoco.queue_size = 512\nmoco.momentum = 0.99")
    gin.parse_config("plain_projection_head.num_layers = 1")
    method = moco(encoder=functools.partial(resnet, 18, 0.125), image_size=32)
    assert list(method.networks["projection_head"].output) == ["projection_0", "projection_1"]
    assert list(method.exported()) == ["encoder", "projection_head"]
    assert list(method.followers) == ["key_encoder", "key_projection_head"]
    assert method.plan_lines(100) == {
        "loss": "InfoNCE, temperature 0.07, 512 negatives of the last 6 batches",
        "key encoder": "momentum 0.99, statistics of 8 parts of the batch",
    }


def test_a_key_costs_a_third_of_a_query():
    """It has no backward pass. A pass is 2 convolutions, valid and of stride 2, and 2 layers."""
    forward = 2 * (7 * 7 * 3 * 3 * 3 * 4 + 3 * 3 * 3 * 3 * 4 * 6 + 6 * 6 + 6 * P)
    assert training_flop(build(), images=2) == (3 + 1) * 2 * forward
