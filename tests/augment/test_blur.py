"""If this code were wrong, images would be blurred by another width than the paper's, all by the
same one, or with other borders than the reference's."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from simclr_tf.augment import blur
from simclr_tf.augment import keys as keys_lib


def naive_blur(image, sigma, radius):
    """Float64 convolution with a truncated Gaussian, rows then columns, zeros outside."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding)
        extent = image.shape[axis]
        image = sum(
            weight * np.take(padded, np.arange(start, start + extent), axis=axis)
            for start, weight in enumerate(weights)
        )
    return image


def drawn_sigmas(keys, op, low=0.1, high=2.0):
    return low + keys_lib.uniform(keys, op, 2).numpy()[:, 1].astype(float) * (high - low)


@pytest.mark.parametrize(("height", "width", "radius"), [(32, 32, 1), (64, 48, 3), (110, 90, 5)])
def test_blur_is_the_naive_convolution_with_each_images_sigma(keys, height, width, radius):
    images = np.random.default_rng(0).random((8, height, width, 3)).astype("f")
    blurred = blur.gaussian_blur(tf.constant(images), keys, op=4, probability=1.0).numpy()
    sigmas = drawn_sigmas(keys, 4)
    assert len(np.unique(sigmas)) == 8
    for image, sigma, result in zip(images.astype(float), sigmas, blurred, strict=True):
        np.testing.assert_allclose(result, naive_blur(image, sigma, radius), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "radius"), [(32, 32, 1), (64, 48, 3), (110, 90, 5)])
def test_one_image_is_blurred_as_in_a_batch(keys, height, width, radius):
    image = np.random.default_rng(0).random((height, width, 3)).astype("f")
    blurred = blur.gaussian_blur(tf.constant(image[None]), keys[:1], op=4, probability=1.0)
    [sigma] = drawn_sigmas(keys[:1], 4)
    expected = naive_blur(image.astype(float), sigma, radius)
    np.testing.assert_allclose(blurred[0], expected, rtol=0, atol=1e-5)


def test_blur_of_224_pixels_is_scipys_with_23_taps(keys):
    image = np.random.default_rng(0).random((1, 224, 224, 3))
    blurred = blur.gaussian_blur(
        tf.constant(image, tf.float32), keys[:1], op=1, probability=1.0, sigma_range=(4.0, 4.0)
    )
    expected = scipy.ndimage.gaussian_filter(
        image[0], (4, 4, 0), mode="constant", radius=(11, 11, 0)
    )
    np.testing.assert_allclose(blurred[0], expected, rtol=0, atol=1e-5)


def test_borders_darken_as_in_the_reference(keys):
    """0.489 was read from the reference code's own blur of a constant image with sigma 1."""
    blurred = blur.gaussian_blur(
        tf.ones([1, 224, 224, 3]), keys[:1], op=1, probability=1.0, sigma_range=(1.0, 1.0)
    )
    assert float(blurred[0, 0, 0, 0]) == pytest.approx(0.489, abs=1e-3)
    assert float(blurred[0, 112, 112, 0]) == pytest.approx(1.0, abs=1e-6)


def test_small_images_stay_as_they_are(images, keys):
    blurred = blur.gaussian_blur(images[:, :19], keys, op=1, probability=1.0)
    np.testing.assert_allclose(blurred, images[:, :19], rtol=0, atol=1e-6)


def test_strength_scales_sigma(keys):
    images = tf.constant(np.random.default_rng(0).random((8, 40, 40, 3)), tf.float32)
    strong = blur.gaussian_blur(images, keys, op=1, probability=1.0, strength=2.0)
    wide = blur.gaussian_blur(images, keys, op=1, probability=1.0, sigma_range=(0.2, 4.0))
    np.testing.assert_array_equal(strong, wide)


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"sigma_range": (2.0, 0.1)}])
def test_impossible_sigma_is_refused(images, keys, options):
    with pytest.raises(ValueError, match=r"positive and ordered. Received: sigma_range="):
        blur.gaussian_blur(images, keys, op=1, **options)
