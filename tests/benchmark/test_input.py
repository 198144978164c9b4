"""If this breaks, the pipeline is compared with a recipe that does less or other work than it."""

import types

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.keys import example_keys
from simclr_tf.augment.policy import augmentation, parse_policy
from simclr_tf.benchmark import input as input_benchmark
from simclr_tf.benchmark import plain_recipe, prepared
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource
from simclr_tf.errors import RequestError
from tests.support.views import pairs

POLICY = (("flip", 0.5), ("color_jitter", 0.8, 1.0), ("grayscale", 0.2))


@pytest.fixture(scope="module")
def pixels():
    ramp = np.linspace(0, 255, 24)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, ::-1], 90.0), axis=-1)
    return tf.constant(image.astype(np.uint8))


def statistics_of(views):
    """Of each view: brightness, contrast, saturation, being gray, redness, left less right."""
    views = np.asarray(views)
    luma = views.mean(axis=-1)
    spread = views.max(axis=-1) - views.min(axis=-1)
    half = luma.shape[2] // 2
    return np.stack(
        [
            luma.mean(axis=(1, 2)),
            luma.std(axis=(1, 2)),
            spread.mean(axis=(1, 2)),
            spread.max(axis=(1, 2)) < 1e-6,
            (views[..., 0] - views[..., 2]).mean(axis=(1, 2)),
            luma[:, :, :half].mean(axis=(1, 2)) - luma[:, :, half:].mean(axis=(1, 2)),
        ],
        axis=1,
    )


def test_the_plain_recipe_has_our_distribution(pixels):
    recipe = augmentation(policy=POLICY)
    size, count = 16, 1500
    plain = tf.data.Dataset.range(count // 2).map(
        lambda _: plain_recipe.views_of_pixels(pixels, recipe, size), 2
    )
    both = np.stack(list(plain.as_numpy_iterator()))
    assert both.shape == (count // 2, size, size, 6)
    assert both.min() >= 0.0 and both.max() <= 1.0
    theirs = statistics_of(np.concatenate([both[..., :3], both[..., 3:]]))
    keys = example_keys(0, 0, tf.range(count), 0)
    crops = recipe.crop(tf.stack([pixels] * count), keys, size)
    ours = statistics_of(recipe(crops, keys))
    errors = np.sqrt((theirs.var(axis=0) + ours.var(axis=0)) / count)
    np.testing.assert_array_less(np.abs(theirs.mean(axis=0) - ours.mean(axis=0)), 4 * errors)


def test_both_forms_of_the_plain_recipe_take_a_jpeg(pixels):
    encoded = tf.io.encode_jpeg(pixels)
    policy = (*POLICY, ("blur", 0.5), ("color_jitter_v1", 0.5, 0.5))
    for form in (plain_recipe.views_of_encoded, plain_recipe.views_of_decoded):
        views = form(encoded, augmentation(policy=policy), 40)
        assert views.shape == (40, 40, 6)
        assert tf.reduce_min(views) >= 0.0 and tf.reduce_max(views) <= 1.0


def test_an_op_that_the_reference_has_not_is_refused():
    (entry,) = parse_policy([("sobel", 0.5)])
    with pytest.raises(RequestError, match="no 'sobel'"):
        plain_recipe.plain_op(entry)


@pytest.mark.slow
def test_photographs_are_compared_with_prepared_ones(monkeypatch):
    monkeypatch.setattr(prepared, "SIZE", (640, 480))
    monkeypatch.setattr(prepared, "_BATCHES", {prepared.FOLDER: 1, prepared.PREPARED: 1})
    pipeline = ViewsPipeline(
        source=None,
        groups=pairs(augmentation(policy=(("flip", 0.5),)), 16),
        seed=0,
        bad_images=None,
        augment_on="device",
    )
    text = prepared.measure(pipeline, 2, input_benchmark.Reader)
    assert "8 photographs of 640 x 480, views without the policy" in text
    assert "| the folder |" in text and "| prepared |" in text and "with the policy" not in text


def test_photographs_are_different_pictures():
    photos = prepared.photographs((160, 120), 8)
    thumbnails = [np.asarray(photo.resize((4, 4))).astype(int) for photo in photos]
    for n, one in enumerate(thumbnails):
        assert all(np.abs(one - other).mean() > 10 for other in thumbnails[:n])


def test_a_recipe_for_arrays_is_measured(monkeypatch):
    source = ArraySource(
        name="arrays",
        num_examples=8,
        class_names=None,
        images=np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8),
        labels=None,
    )
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(("flip", 0.5),)), 16),
        seed=0,
        bad_images=BadImages(source),
    )
    monkeypatch.setattr(input_benchmark, "_PIXELS_IN_A_ROUND", 16 * 16 * 8)
    monkeypatch.setattr(prepared, "measure", lambda *_: "of prepared photographs")
    run = types.SimpleNamespace(
        pipeline=pipeline,
        strategy=tf.distribute.get_strategy(),
        plan=types.SimpleNamespace(global_batch_size=4),
    )
    text = input_benchmark.measure(run, rounds=2)
    assert "2 batches of 4 images a round" in text and text.endswith("of prepared photographs")
    assert text.count(input_benchmark.OURS) == text.count(input_benchmark.PLAIN) == 2
