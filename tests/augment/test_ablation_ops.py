"""If this code were wrong, a repetition of the paper's comparison of augmentations would compare
other ops than it names."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from simclr_tf.augment import ablation_ops


def test_crop_shows_a_part_of_the_image(many_keys):
    """Of a ramp, a part is a ramp again, within the same levels and not as steep."""
    ramp = np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32)[:, None], (24, 24))
    images = tf.tile(tf.constant(ramp)[None, :, :, None], [512, 1, 1, 3])
    cropped = ablation_ops.crop(images, many_keys[:512], op=1, probability=1.0).numpy()
    np.testing.assert_allclose(cropped.std(axis=(2, 3)), 0, atol=1e-6)
    steps = np.diff(cropped[:, 4:-4, 0, 0], axis=1)
    np.testing.assert_allclose(steps - steps.mean(axis=1, keepdims=True), 0, atol=4e-3)
    height = steps.mean(axis=1) * 23  # as a share of the image's height
    # Areas of 0.1 to 1 at aspects of 3/4 to 4/3, in whole pixels.
    assert 0.25 < height.min() < 0.35 and height.max() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("strength", "side"), [(1.0, 16), (0.5, 8), (0.32, 5)])
def test_cutout_zeroes_one_square(many_keys, strength, side):
    images = tf.ones([512, 32, 32, 3])
    cut = ablation_ops.cutout(
        images, many_keys[:512], op=1, probability=1.0, strength=strength
    ).numpy()
    assert set(np.unique(cut)) == {0.0, 1.0}
    zeros = cut[..., 0] == 0.0
    assert (zeros[..., None] == (cut == 0.0)).all()
    heights = zeros.any(axis=2).sum(axis=1)
    widths = zeros.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(zeros.sum(axis=(1, 2)), heights * widths)
    assert heights.max() == widths.max() == side
    assert heights.min() >= side // 2


def test_cutout_is_centred_on_every_pixel_alike(many_keys):
    cut = ablation_ops.cutout(
        tf.ones([4096, 6, 6, 3]), many_keys, op=1, probability=1.0, strength=1 / 3
    )
    centres = np.argwhere(cut.numpy()[..., 0] == 0.0)
    assert len(centres) == 4096
    counts = np.bincount(centres[:, 1] * 6 + centres[:, 2], minlength=36)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_rotate90_turns_by_each_multiple_equally(many_keys):
    image = np.arange(2 * 2 * 3, dtype="f").reshape(2, 2, 3)
    images = tf.tile(image[None], [4096, 1, 1, 1])
    turned = ablation_ops.rotate90(images, many_keys, op=1, probability=1.0).numpy()
    counts = [(turned == np.rot90(image, k)).all(axis=(1, 2, 3)).sum() for k in (1, 2, 3)]
    assert sum(counts) == 4096
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_rotate90_refuses_images_that_are_not_square(keys):
    with pytest.raises(ValueError, match="Received: height=4, width=6"):
        ablation_ops.rotate90(tf.zeros([8, 4, 6, 3]), keys, op=1)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_noise_is_white_and_of_the_stated_deviation(keys, strength):
    gray = tf.fill([8, 32, 32, 3], 0.5)
    noisy = ablation_ops.gaussian_noise(
        gray, keys, op=1, probability=1.0, strength=strength
    ).numpy()
    noise = (noisy - 0.5) / (0.1 * strength)
    within = noise[np.abs(noise) < 4.5]
    assert scipy.stats.kstest(within, "norm").pvalue > 1e-3
    shifted = [
        noise[:, 1:] * noise[:, :-1],
        noise[..., 1:] * noise[..., :-1],
        noise[1:] * noise[:-1],
    ]
    assert all(abs(product.mean()) < 5 / np.sqrt(product.size) for product in shifted)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_sobel_is_the_length_of_scipys_gradient(images, keys, strength):
    edges = ablation_ops.sobel(images, keys, op=1, probability=1.0, strength=strength)
    for image, result in zip(images.numpy(), edges.numpy(), strict=True):
        for channel in range(3):
            plane = image[..., channel]
            gradient = [scipy.ndimage.sobel(plane, axis=axis, mode="mirror") for axis in (0, 1)]
            expected = np.clip(strength * np.hypot(*gradient), 0.0, 1.0)
            np.testing.assert_allclose(result[..., channel], expected, rtol=0, atol=1e-5)
