"""If this breaks, the table of what h keeps and z loses predicts other labels than were shown."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from simclr_tf.evaluation import invariance
from simclr_tf.evaluation.invariance import MIN_TRAIN, TASKS, accuracy, labels, transform

IMAGES = np.random.default_rng(0).random((40, 12, 12, 3)).astype(np.float32)
INDEX = np.arange(40) * 7 + 2**20
COLOUR, ROTATION, NOISE, SOBEL = TASKS


def shown(task, images=IMAGES, index=INDEX, seed=0):
    return transform(task, seed).function(tf.constant(images), tf.constant(index)).numpy()


def sobel(image):
    channels = [
        np.hypot(*(ndimage.sobel(channel, axis, mode="mirror") for axis in (0, 1)))
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(channels, -1), 0, 1)


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        (COLOUR, lambda image: np.repeat((image @ [0.2989, 0.587, 0.114])[..., None], 3, -1)),
        (SOBEL, sobel),
    ],
)
def test_images_are_changed_where_the_label_says_so(task, changed):
    kinds = labels(task, 0, INDEX)
    assert set(kinds) == {0, 1}
    for image, kind, found in zip(IMAGES, kinds, shown(task), strict=True):
        np.testing.assert_allclose(found, changed(image) if kind else image, atol=1e-5)


def test_turns_are_those_of_the_label():
    kinds = labels(ROTATION, 0, INDEX)
    assert set(kinds) == {0, 1, 2, 3}
    for image, kind, found in zip(IMAGES, kinds, shown(ROTATION), strict=True):
        np.testing.assert_array_equal(found, np.rot90(image, kind))


def test_noise_is_of_the_named_strength():
    kinds = labels(NOISE, 0, INDEX)
    gray = np.full_like(IMAGES, 0.5)  # so far from 0 and 1 that nothing is clipped
    difference = shown(NOISE, gray) - gray
    assert not difference[kinds == 0].any()
    assert difference[kinds == 1].std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_image_is_shown_as_its_number_says(task):
    """Whatever the batch and the order: so h and z, and cached features, are of one version."""
    order = np.random.default_rng(1).permutation(40)[:17]
    np.testing.assert_array_equal(shown(task, IMAGES[order], INDEX[order]), shown(task)[order])
    kinds = labels(task, 0, INDEX)
    np.testing.assert_array_equal(labels(task, 0, INDEX[order]), kinds[order])
    assert (labels(task, 1, INDEX) != kinds).any()
    assert transform(task, 0).name != transform(task, 1).name


def test_every_kind_is_equally_likely_and_tasks_draw_independently():
    many = np.arange(20_000)
    drawn = [labels(task, 0, many) for task in TASKS]
    for task, kinds in zip(TASKS, drawn, strict=True):
        share = np.bincount(kinds, minlength=len(task.kinds)) / len(many)
        np.testing.assert_allclose(share, task.chance, atol=4 * np.sqrt(0.25 / len(many)))
    for i in range(len(TASKS)):
        for j in range(i):
            assert abs(np.corrcoef(drawn[i], drawn[j])[0, 1]) < 4 / np.sqrt(len(many))


def test_what_features_know_is_predicted_and_nothing_else():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 900)
    noise = rng.normal(size=(900, 8)).astype(np.float32)
    known = noise.copy()
    known[:, 0] = np.abs(known[:, 0]) * 100 + 500 * kinds  # no scale may hide it
    train, test = slice(0, 600), slice(600, 900)
    found = [accuracy(x[train], kinds[train], x[test], kinds[test], 0) for x in (known, noise)]
    assert found[0] > 0.9
    assert abs(found[1] - 0.5) < 4 * np.sqrt(0.25 / 300)


def test_too_few_images_are_refused():
    few = np.zeros((MIN_TRAIN - 1, 2), np.float32)
    with pytest.raises(ValueError, match=f"At least {MIN_TRAIN} images"):
        invariance.accuracy(few, np.zeros(len(few)), few, np.zeros(len(few)), 0)
