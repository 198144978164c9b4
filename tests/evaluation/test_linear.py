"""If this breaks, published accuracies are wrong: examples lost, test data seen, encoder moved."""

import numpy as np

from simclr_tf.data.source import ArraySource
from simclr_tf.evaluation.baselines import colour_histograms
from simclr_tf.evaluation.features import representations
from simclr_tf.evaluation.linear import fit_linear
from simclr_tf.models.resnet import resnet

RNG = np.random.default_rng(0)
SOURCE = ArraySource(
    name="arrays",
    num_examples=11,
    class_names=["a", "b"],
    images=RNG.integers(0, 256, (11, 16, 16, 3), np.uint8),
    labels=np.arange(11) % 2,
)


def test_features_are_the_encoder_s_for_every_image_once_and_it_stays():
    encoder = resnet(18, 0.125, image_size=16)
    before = encoder.get_weights()
    features, labels = representations(encoder, SOURCE, 16, batch_size=4)
    images = SOURCE.images.astype(np.float32) / 255
    expected = encoder(images, training=False)["final_avg_pool"]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, SOURCE.labels)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def blobs(count, spread, seed, classes=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(9).normal(0, 1, (classes, 8))
    return (centres[labels] + rng.normal(0, spread, (count, 8))).astype(np.float32), labels


def test_separable_features_are_separated():
    result = fit_linear(blobs(600, 0.05, 0), blobs(101, 0.05, 1))
    assert result.top1 == result.top5 == 1.0
    assert (result.num_train, result.num_test) == (600, 101)


def test_close_to_the_best_possible_classifier():
    """For equal spheres the nearest centre is optimal, and a linear classifier can be it."""
    features, labels = test = blobs(3000, 1.0, 1)
    centres = np.random.default_rng(9).normal(0, 1, (6, 8))
    nearest = ((features[:, None] - centres) ** 2).sum(-1).argmin(1)
    optimal = (nearest == labels).mean()
    assert abs(fit_linear(blobs(3000, 1.0, 0), test).top1 - optimal) < 0.03


def test_random_labels_stay_at_chance():
    features, _ = blobs(2000, 1.0, 0)
    labels = RNG.integers(0, 6, 2000)
    test = features[1000:], labels[1000:]
    assert fit_linear((features[:1000], labels[:1000]), test).top1 < 1 / 6 + 0.06


def test_two_classes_have_scores_of_their_own():
    features, labels = blobs(400, 0.1, 0, classes=2)
    assert fit_linear((features, labels), (features, labels)).top1 == 1.0


def test_histograms_count_every_pixel_in_its_cell():
    histograms, _ = colour_histograms(SOURCE, 16)
    for image, histogram in zip(SOURCE.images, histograms, strict=True):
        expected, _ = np.histogramdd(image.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)
        np.testing.assert_allclose(histogram, expected.reshape(-1) / 256, atol=1e-6)
