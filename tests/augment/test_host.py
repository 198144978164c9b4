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


def test_without_xla_for_the_host_views_are_the_same(monkeypatch):
    """Boxes exactly, colours to rounding, as on the host of a TPU."""
    recipe = augmentation(policy=POLICY)
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 700, (200, 2), np.int32)
    views = rng.uniform(-9, 264, (8, 24, 24, 3)).astype("f")

    def made():
        sample, augment = host.box_sampler(recipe, 2), host.view_augmenter(recipe)
        boxes = [sample(number(5), number(2), number(i), *size) for i, size in enumerate(sizes)]
        return np.stack(boxes), np.stack(
            [
                augment(view, number(5), number(2), number(i), tf.constant(1))
                for i, view in enumerate(views)
            ]
        )

    compiled = made()
    for function in (host.box_sampler, host.view_augmenter):
        monkeypatch.setattr(host, function.__name__, function.__wrapped__)  # made again
    monkeypatch.setattr(host, "host_compiles", lambda: False)
    plain = made()
    np.testing.assert_array_equal(plain[0], compiled[0])
    np.testing.assert_allclose(plain[1], compiled[1], rtol=0, atol=1e-5)
