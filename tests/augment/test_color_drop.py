"""If this code were wrong, patches would keep the colours by which they are told."""

import numpy as np
import scipy.stats
import tensorflow as tf

from simclr_tf.augment.color_drop import color_drop


def test_one_channel_stays_and_each_as_often(many_keys):
    rng = np.random.default_rng(0)
    images = rng.uniform(0.0, 0.4, (len(many_keys), 2, 3, 3)).astype(np.float32)
    dropped = color_drop(tf.constant(images), many_keys, op=1, probability=1.0).numpy()
    is_kept = (dropped == images).all(axis=(1, 2))
    assert (is_kept.sum(axis=1) == 1).all()
    assert (dropped[dropped != images] == 0.5).all()
    assert scipy.stats.chisquare(is_kept.sum(axis=0)).pvalue > 0.001


def test_so_many_images_are_changed(many_keys):
    images = tf.zeros([len(many_keys), 1, 1, 3])
    dropped = color_drop(images, many_keys, op=1, probability=0.3).numpy()
    count = int((dropped != 0).any(axis=(1, 2, 3)).sum())
    assert scipy.stats.binomtest(count, len(many_keys), 0.3).pvalue > 0.001
