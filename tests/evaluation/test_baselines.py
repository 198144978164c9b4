"""If this breaks, SimCLR is compared with a baseline that is not one."""

import numpy as np

from simclr_tf.data.source import ArraySource
from simclr_tf.evaluation.baselines import colour_histograms


def test_histograms_count_every_pixel_in_its_cell():
    images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)
    source = ArraySource(
        name="arrays", num_examples=11, class_names=None, images=images, labels=None
    )
    histograms = colour_histograms(source, 16).values
    for image, histogram in zip(images, histograms, strict=True):
        expected, _ = np.histogramdd(image.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)
        np.testing.assert_allclose(histogram, expected.reshape(-1) / 256, atol=1e-6)
