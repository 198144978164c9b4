"""The loss of CPC v2, against its definition in loops and float64, on R replicas."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import InvalidArgument
from simclr_tf.objectives.cpc import DIRECTIONS, METRICS, CPCLoss
from tests.support.differences import slope

G, SIDE, T, SCALE = 4, 3, 6, 0.5
OFFSETS = (1, 2)


def predictions_and_targets() -> tuple[np.ndarray, np.ndarray]:
    """Some predictions are near what they predict: [G, g, g, 4, 2*T] and [G, g, g, T]."""
    rng = np.random.default_rng(0)
    targets = 2 * rng.normal(size=(G, SIDE, SIDE, T))
    predictions = rng.normal(size=(G, SIDE, SIDE, 4, 2, T))
    for d, (down, right) in enumerate(DIRECTIONS.values()):
        for k, offset in enumerate(OFFSETS):
            moved = np.roll(targets, (-down * offset, -right * offset), axis=(1, 2))
            predictions[::2, :, :, d, k] += 3 * moved[::2]
    return predictions.reshape(G, SIDE, SIDE, 4, -1).astype(np.float32), targets.astype(np.float32)


def oracle(predictions, targets, directions=tuple(DIRECTIONS), groups: int = 1) -> dict[str, float]:
    """Every patch that lies in the image is predicted; all patches of a group are compared."""
    predictions = np.asarray(predictions, np.float64).reshape(G, SIDE, SIDE, -1, 2, T)
    targets = np.asarray(targets, np.float64)
    steps = {"down": (1, 0), "up": (-1, 0), "left": (0, -1), "right": (0, 1)}
    loss, found, in_image = 0.0, [], []
    for d, direction in enumerate(directions):
        for k, offset in enumerate(OFFSETS):
            losses, firsts, images = [], [], []
            for image, row, column in np.ndindex(G, SIDE, SIDE):
                there = row + offset * steps[direction][0], column + offset * steps[direction][1]
                if not (0 <= there[0] < SIDE and 0 <= there[1] < SIDE):
                    continue
                group = [i for i in range(G) if i // (G // groups) == image // (G // groups)]
                logits = {
                    (i, r, c): SCALE * predictions[image, row, column, d, k] @ targets[i, r, c]
                    for i in group
                    for r, c in np.ndindex(SIDE, SIDE)
                }
                total = sum(math.exp(logit) for logit in logits.values())
                losses.append(-math.log(math.exp(logits[(image, *there)]) / total))
                best = max(logits, key=logits.get)
                firsts.append(best == (image, *there))
                images.append(best[0] == image)
            loss += np.mean(losses)
            found.append(np.mean(firsts))
            in_image.append(np.mean(images))
    top1, same = np.mean(found), np.mean(in_image)
    return {"loss": loss, "prediction_top1": top1, "prediction_in_image": same}


@pytest.mark.parametrize(
    ("replicas", "groups"), [(1, 1), (1, 2), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2)]
)
def test_equals_its_definition_on_any_replicas(replicas, groups):
    predictions, targets = predictions_and_targets()
    strategy = simulated_replicas(replicas)
    objective = CPCLoss(offsets=OFFSETS, scale=SCALE, negative_groups=groups)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = [tf.gather(tf.split(x, replicas), replica) for x in (predictions, targets)]
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss, metrics = objective(*own)
        return loss, metrics, tape.gradient(loss, own)

    loss, metrics, gradients = tf.function(lambda: strategy.run(share), autograph=False)()
    expected = oracle(predictions, targets, groups=groups)
    assert 0.2 < expected["prediction_top1"] < expected["prediction_in_image"]
    assert expected["prediction_in_image"] < 0.95 or groups == G
    assert list(metrics) == [metric.name for metric in METRICS]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, err_msg=name)
    for i, index in [
        (0, (0, 1, 2, 0, 4)),
        (0, (3, 2, 2, 1, 0)),
        (1, (1, 0, 2, 2)),
        (1, (2, 2, 1, 0)),
    ]:
        given = [predictions, targets]

        def loss_by(value, i=i, given=given):
            changed = [value if j == i else x for j, x in enumerate(given)]
            return oracle(*changed, groups=groups)["loss"]

        gradient = np.concatenate(strategy.experimental_local_results(gradients[i]))
        np.testing.assert_allclose(gradient[index], slope(loss_by, given[i], index), rtol=1e-3)


@pytest.mark.parametrize("directions", [("down",), ("left", "up")])
def test_some_directions_alone(directions):
    predictions, targets = predictions_and_targets()
    chosen = predictions[:, :, :, : len(directions)]
    loss, _ = CPCLoss(directions, OFFSETS, SCALE)(tf.constant(chosen), tf.constant(targets))
    np.testing.assert_allclose(loss, oracle(chosen, targets, directions)["loss"], rtol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("offset", [1, 2])
def test_each_prediction_is_for_one_patch(direction, offset):
    """With targets at right angles the loss shows, context by context, which patch is meant."""
    side = 3
    targets = tf.reshape(tf.eye(2 * side**2), [2, side, side, -1])
    loss = CPCLoss((direction,), (offset,), 50.0)
    down, right = DIRECTIONS[direction]
    moved = tf.roll(targets, [-down * offset, -right * offset], axis=[1, 2])
    lost, metrics = loss(moved[:, :, :, tf.newaxis], targets)
    assert lost < 1e-6 and metrics["prediction_top1"] == 1.0
    # What would lie outside of the image is not predicted: the last rows or columns do not count.
    outside = {1: slice(side - offset, None), -1: slice(0, offset)}[down + right]
    wrong = moved.numpy()
    wrong[(slice(None), outside) if down else (slice(None), slice(None), outside)] *= -1
    assert loss(wrong[:, :, :, np.newaxis], targets)[0] < 1e-6
    assert loss(-moved[:, :, :, tf.newaxis], targets)[0] > 10


def test_chance_of_the_papers_batch():
    """ln(64 * 36) = 7.74 for each direction and offset; and for equal vectors."""
    once = functools.partial(CPCLoss, ("down",), (3,))
    assert once().chance(64, 6) == pytest.approx(7.74, abs=0.005)
    assert CPCLoss(offsets=(3, 4)).chance(64, 6) == pytest.approx(8 * 7.742, abs=0.005)
    assert once(negative_groups=32).chance(512, 6) == pytest.approx(math.log(16 * 36))
    loss, _ = once()(tf.ones([2, 4, 4, 1, T]), tf.ones([2, 4, 4, T]))
    np.testing.assert_allclose(loss, once().chance(2, 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"directions": ("down", "north")}, r"must be among down, up, right, left.*north"),
        ({"directions": ()}, "each named once"),
        ({"offsets": (2, 2)}, "each named once"),
        ({"offsets": (0,)}, r"offsets and negative_groups of at least 1.*offsets=\(0,\)"),
        ({"scale": 0.0}, "a scale above 0"),
        ({"negative_groups": 0}, "negative_groups=0"),
    ],
)
def test_what_is_no_loss_is_refused(settings, words):
    with pytest.raises(InvalidArgument, match=words):
        CPCLoss(**settings)
