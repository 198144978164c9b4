"""If this breaks, an image is augmented otherwise on the host than on an accelerator."""

import numpy as np
import tensorflow as tf

from simclr_tf.augment import host, keys
from simclr_tf.augment.policy import augmentation

POLICY = (("flip", 0.5), ("color_jitter", 0.8, 1.0), ("grayscale", 0.2), ("blur", 0.5))


def number(value):
    return tf.constant(value, tf.int64)


def test_a_view_alone_is_what_it_is_in_a_batch():
    recipe = augmentation(policy=POLICY)
    levels = np.random.default_rng(0).uniform(-9, 264, (24, 24, 24, 3)).astype("f")
    unit = tf.constant(np.clip(levels / 255, 0, 1))
    batch = recipe(unit, keys.example_keys(5, 2, tf.range(24), 1))
    augment = host.view_augmenter(recipe)
    for i, expected in enumerate(batch):
        view = augment(tf.constant(levels[i]), number(5), number(2), number(i), tf.constant(1))
        np.testing.assert_allclose(view, expected, rtol=0, atol=1e-5)


def test_boxes_of_an_image_are_those_of_its_keys():
    recipe = augmentation()
    sample = host.box_sampler(recipe, 2)
    for i in range(8):
        drawn = [keys.example_keys(5, 2, tf.constant([i]), view) for view in range(2)]
        expected = recipe.sample_boxes(tf.concat(drawn, 0), [60, 60], [80, 80])
        boxes = sample(number(5), number(2), number(i), tf.constant(60), tf.constant(80))
        np.testing.assert_array_equal(boxes, expected)
