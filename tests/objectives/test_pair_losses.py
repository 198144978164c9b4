"""The losses of the paper's tables 2, 4 and 5 against their definition in loops and float64."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.objectives.margin_triplet import MarginTriplet
from simclr_tf.objectives.nt_logistic import NTLogistic
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.objectives.view_metrics import METRICS

G, P, VIEWS = 8, 5, 3
# Images 0 and 2 are one image, as in a batch that spans two epochs.
IMAGES = np.array([3, 1, 3, 2, 7, 0, 9, 5], np.int32)


def projections(views: int, seed: int) -> np.ndarray:
    """Noisy views of G examples, [views * G, P], of length above and below 1."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).normal(size=(G, P))
    z = base + rng.normal(size=(views, G, P))
    return (0.5 * z).reshape(-1, P).astype(np.float32)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def nt_xent(positive, negatives, loss):
    temperature = loss.temperature
    scores = np.exp(np.array([positive, *negatives]) / temperature)
    return -math.log(scores[0] / scores.sum())


def nt_logistic(positive, negatives, loss):
    temperature = loss.temperature
    others = [softplus(similarity / temperature) for similarity in negatives]
    return softplus(-positive / temperature) + np.mean(others or [0])


def margin_triplet(positive, negatives, loss):
    others = [max(similarity - positive + loss.margin, 0) for similarity in negatives]
    return np.mean(others or [0])


def semi_hard(positive, negatives):
    """The most similar of those less similar than the positive, else the least similar."""
    behind = [s for s in negatives if s < positive]
    return [max(behind)] if behind else [min(negatives)] if negatives else []


def oracle(definition, loss, z, small=None, images=IMAGES) -> dict[str, float]:
    """The mean over anchors; an anchor has negatives in the view of its positive alone."""
    one_view = getattr(loss, "one_view_negatives", True)
    z, small = z.astype(np.float64), None if small is None else small.astype(np.float64)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    if loss.normalize:
        z = unit
        small = None if small is None else small / np.linalg.norm(small, axis=1, keepdims=True)
    anchors = [(z[i], i % G, (i + G) % (2 * G)) for i in range(2 * G)]
    for i, row in enumerate([] if small is None else small):
        anchors += [(row, i % G, i % G), (row, i % G, i % G + G)]
    losses, ranks, cosines = [], [], []
    for number, (anchor, own, positive) in enumerate(anchors):
        rows = range(2 * G) if not one_view else range(positive // G * G, positive // G * G + G)
        others = [k for k in rows if images[k % G] != images[own]]
        near = anchor @ z[positive]
        negatives = [anchor @ z[k] for k in others]
        ranks.append(sum(s >= near for s in negatives))
        if number < 2 * G:
            cosines.append(np.mean(unit[others] @ unit[number]))
        if getattr(loss, "semi_hard", False):
            negatives = semi_hard(near, negatives)
        losses.append(definition(near, negatives, loss))
    ranks = np.array(ranks[: 2 * G])
    return {
        "loss": np.mean(losses),
        "contrastive_top1": np.mean(ranks < 1),
        "contrastive_top5": np.mean(ranks < 5),
        "positive_cosine": np.mean((unit[:G] * unit[G:]).sum(1)),
        "negative_cosine": np.mean(cosines),
        "embedding_std": unit.std(0).mean() * math.sqrt(P),
    }


LOSSES = {
    "NT-Xent of products": (nt_xent, NTXent(2.0, normalize=False)),
    "NT-Xent in blocks of products": (nt_xent, NTXent(2.0, block_size=3, normalize=False)),
    "NT-Xent of one view": (nt_xent, NTXent(0.5, one_view_negatives=True)),
    **{
        f"NT-Logistic {normalize} {mined}": (nt_logistic, NTLogistic(0.5, normalize, mined))
        for normalize, mined in itertools.product((True, False), (True, False))
    },
    **{
        f"triplet {normalize} {mined}": (margin_triplet, MarginTriplet(0.4, normalize, mined))
        for normalize, mined in itertools.product((True, False), (True, False))
    },
}


@pytest.fixture(params=LOSSES)
def named(request):
    return LOSSES[request.param]


def by_replica(array: np.ndarray, replicas: int, views: int) -> np.ndarray:
    """[views * G, ...] to [R, views * B, ...], view after view on each replica."""
    split = array.reshape(views, replicas, -1, *array.shape[1:])
    return np.swapaxes(split, 0, 1).reshape(replicas, -1, *array.shape[1:])


@pytest.mark.parametrize(("replicas", "small"), [(1, False), (2, True), (4, True)])
def test_equals_its_definition_on_any_replicas(named, replicas, small):
    definition, loss = named
    z, more = projections(2, 1), projections(VIEWS, 2)
    parts = [by_replica(a, replicas, v) for a, v in ((z, 2), (more, VIEWS), (IMAGES, 1))]
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own, some, images = (tf.gather(tf.constant(part), replica) for part in parts)
        with tf.GradientTape() as tape:
            tape.watch([own, some])
            value, metrics = loss(own, images, some if small else None)
        return value, metrics, tape.gradient(value, [own, some], unconnected_gradients="zero")

    value, metrics, gradients = tf.function(lambda: strategy.run(share))()
    expected = oracle(definition, loss, z, more if small else None)
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, number in {"loss": value, **metrics}.items():
        if name in expected:
            found = strategy.reduce("SUM", number, axis=None)
            np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    for place, (array, views) in enumerate(((z, 2), (more, VIEWS))[: 1 + small]):
        found = np.stack(strategy.experimental_local_results(gradients[place]))
        for index in [(0, 0), (5, 3), (12, 1)]:
            shift = np.zeros(array.shape)
            shift[index] = 1e-6
            moved = [
                oracle(
                    definition,
                    loss,
                    z + (sign * shift if place == 0 else 0.0),
                    (more + (sign * shift if place == 1 else 0.0)) if small else None,
                )["loss"]
                for sign in (1, -1)
            ]
            slope = (moved[0] - moved[1]) / 2e-6
            own = tuple(np.argwhere(by_replica(shift, replicas, views))[0])
            np.testing.assert_allclose(found[own], slope, rtol=1e-4, atol=1e-5)


def test_no_numbers_are_numbers_of_their_own(named):
    definition, loss = named
    z = projections(2, 1)
    expected = oracle(definition, loss, z, images=np.arange(G))
    np.testing.assert_allclose(loss(tf.constant(z))[0], expected["loss"], rtol=2e-5)


def test_one_image_alone_has_no_negatives(named):
    """Then its positive is all there is to learn from, and the gradient is finite."""
    _, loss = named
    z = tf.constant(projections(2, 1))
    with tf.GradientTape() as tape:
        tape.watch(z)
        value, _ = loss(z, tf.ones([G], tf.int32))
    gradient = tape.gradient(value, z)
    assert np.isfinite(gradient).all() and np.isfinite(value)
    if isinstance(loss, MarginTriplet):
        assert value == 0.0 and not gradient.numpy().any()


@pytest.mark.parametrize("mined", [False, True])
@pytest.mark.parametrize("kind", [NTLogistic, MarginTriplet])
def test_chance_and_floor(kind, mined):
    """Of projections that say nothing, zeros or all the same, and of orthogonal pairs."""
    loss = kind(1.6, semi_hard=mined)
    blind = tf.zeros([2 * G, P]) if kind is NTLogistic else tf.ones([2 * G, P])
    np.testing.assert_allclose(loss(blind)[0], loss.chance(G), rtol=1e-6)
    np.testing.assert_allclose(loss(tf.tile(tf.eye(G), [2, 1]))[0], loss.floor(G), rtol=1e-6)
    assert loss.floor(G) < loss.chance(G)
    far = kind(1.6, normalize=False, semi_hard=mined)
    separate = 100 * (tf.tile(tf.eye(G), [2, 1]) - 1 / G)
    assert far(separate)[0].numpy() == pytest.approx(far.floor(G), abs=1e-2)


@pytest.mark.parametrize("kind", [NTLogistic, MarginTriplet])
def test_xla_compiles_it(kind):
    loss, z, small = kind(0.5, semi_hard=True), projections(2, 1), projections(VIEWS, 2)
    plain = loss(tf.constant(z), tf.constant(IMAGES), tf.constant(small))[0]
    compiled = tf.function(lambda *a: loss(*a)[0], jit_compile=True)
    np.testing.assert_allclose(compiled(z, IMAGES, small), plain, rtol=1e-5)


def test_chance_and_floor_of_one_view_and_of_products():
    one_view, products = NTXent(0.5, one_view_negatives=True), NTXent(10.0, normalize=False)
    np.testing.assert_allclose(one_view(tf.ones([2 * G, P]))[0], math.log(G), rtol=1e-6)
    assert one_view.chance(G) == math.log(G)
    orthogonal = tf.tile(tf.eye(G), [2, 1])
    np.testing.assert_allclose(one_view(orthogonal)[0], one_view.floor(G), rtol=1e-6)
    np.testing.assert_allclose(products(tf.ones([2 * G, P]))[0], products.chance(G), rtol=1e-6)
    assert products(1000 * orthogonal)[0] == products.floor(G) == 0.0


def test_rejects():
    with pytest.raises(ValueError, match=r"margin must be at least 0. Received: margin=-1.0"):
        MarginTriplet(-1.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        NTLogistic(0.0)
    with pytest.raises(ValueError, match="decoupled needs normalized projections"):
        NTXent(decoupled=True, normalize=False)
