"""If this breaks, an image is compared with another image's past, or replicas have other banks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.methods.memory_bank import memory_bank, moved, rows_to_compare


def test_the_start_is_random_directions_by_the_seed():
    keras.utils.set_random_seed(0)
    bank = memory_bank(400, 5).numpy()
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(memory_bank(400, 5), bank)
    assert not np.array_equal(memory_bank(400, 5), bank)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1.0, rtol=1e-5)
    assert np.abs(bank.mean(axis=0)).max() < 4 / np.sqrt(400 * 5)


def test_two_steps_by_hand():
    """Of 3-4-5 triangles: (1, 0) moves half way to (0, 1), and (0.6, 0.8) to (0.8, -0.6)."""
    bank = tf.constant([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    rows = tf.constant([[0.8, -0.6], [0.0, 1.0]])
    half = 0.5**0.5
    once = moved(bank, tf.constant([2, 0]), rows, momentum=0.5)
    along = np.array([1.4, 0.2]) / np.sqrt(2.0)
    np.testing.assert_allclose(once, [[half, half], [0.0, 1.0], along], rtol=1e-6)
    twice = moved(once, tf.constant([0]), tf.constant([[1.0, 0.0]]), momentum=0.75)
    to = np.array([0.75 * half + 0.25, 0.75 * half])
    np.testing.assert_allclose(twice[0], to / np.linalg.norm(to), rtol=1e-6)
    np.testing.assert_allclose(twice[1:], once[1:])


@pytest.mark.parametrize("compiled", [False, True])
def test_an_image_that_a_batch_has_twice_moves_towards_the_first(compiled):
    """And not towards the last one that is written."""
    bank = tf.eye(4)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    function = tf.function(moved, jit_compile=compiled)
    found = function(bank, tf.constant([2, 0, 2, 3, 2]), rows, 0.5)
    alone = moved(bank, tf.constant([2, 0, 3]), tf.gather(rows, [0, 1, 3]), 0.5)
    np.testing.assert_allclose(found, alone, rtol=1e-6)


def compared(index, step=3, head=0, images=50, negatives=4000):
    return rows_to_compare(
        tf.constant(index, tf.int32),
        tf.constant(step),
        images=images,
        negatives=negatives,
        head=head,
    ).numpy()


def test_negatives_are_drawn_from_all_images_alike():
    found = compared([7, 49, 0])
    np.testing.assert_array_equal(found[:, 0], [7, 49, 0])
    counts = np.bincount(found[:, 1:].ravel(), minlength=50)
    assert len(counts) == 50
    # Chi-squared of 49 degrees of freedom: below 100 but for once in 20,000 times.
    assert np.sum((counts - 240.0) ** 2 / 240.0) < 100


def test_negatives_depend_on_image_step_and_head_alone():
    found = compared([7, 49])
    np.testing.assert_array_equal(compared([49]), found[1:])
    assert not np.array_equal(found[0, 1:], found[1, 1:])
    for other in (compared([7, 49], step=4), compared([7, 49], head=1)):
        assert not np.any(np.all(other[:, 1:] == found[:, 1:], axis=1))


def test_a_large_data_set_has_no_image_that_is_never_drawn():
    """24 bits would reach every second image of 2^25 alone."""
    drawn = compared([0, 1, 2], images=2**25)[:, 1:]
    assert drawn.min() >= 0 and drawn.max() < 2**25
    assert 0.45 < np.mean(drawn % 2) < 0.55
