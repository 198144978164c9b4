"""If this code were wrong, crops would not be distributed as in the reference, pixels would be
interpolated from the wrong places, or evaluation would see another part of the image."""

import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.augment import crop
from simclr_tf.augment import keys as keys_lib


def ours(count, height, width, **options):
    keys = keys_lib.example_keys(3, 0, np.arange(count), 0)
    boxes = tf.function(functools.partial(crop.sample_crop_boxes, **options))(
        keys, tf.fill([count], height), tf.fill([count], width)
    )
    return boxes.numpy()


@tf.function
def tensorflows(count, height, width, min_object_covered, smallest=0.08, largest=1.0):
    def one(index):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [height, width, 3],
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=tf.stack([index, 1]),
            min_object_covered=min_object_covered,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(smallest, largest),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    return tf.map_fn(one, tf.range(count), fn_output_signature=tf.int32)


@pytest.mark.parametrize("covered", [0.1, 0.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (375, 500), (200, 60)])
def test_boxes_are_distributed_as_tensorflows(height, width, covered):
    mine = ours(5000, height, width, min_object_covered=covered)
    theirs = tensorflows(5000, height, width, covered).numpy()
    for what in (
        lambda y, x, h, w: h * w,
        lambda y, x, h, w: w / h,
        lambda y, x, h, w: y / np.maximum(height - h, 1),
        lambda y, x, h, w: x / np.maximum(width - w, 1),
        lambda y, x, h, w: y + h,
    ):
        samples = (what(*boxes.T.astype(float)) for boxes in (mine, theirs))
        assert scipy.stats.ks_2samp(*samples).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "area_range"),
    [(7, 9, (0.2, 1.0)), (9, 7, (0.08, 1.0)), (8, 6, (0.3, 0.5))],
)
def test_every_box_of_a_tiny_image_is_as_likely_as_tensorflows(height, width, area_range):
    """At this size a wrong rounding anywhere changes the odds of some box."""
    mine = ours(20000, height, width, area_range=area_range)
    samples = [mine, tensorflows(20000, height, width, 0.1, *area_range).numpy()]
    kinds, which = np.unique(np.concatenate(samples), axis=0, return_inverse=True)
    table = np.stack([np.bincount(half, minlength=len(kinds)) for half in np.split(which, 2)])
    common = table.sum(axis=0) >= 20
    table = np.column_stack([table[:, common], table[:, ~common].sum(axis=1) + 1])
    assert table.shape[1] > 15
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_covering_the_object_raises_the_smallest_area_to_a_tenth():
    smallest = {
        covered: (boxes[:, 2] * boxes[:, 3]).min() / 224**2
        for covered in (0.1, 0.0)
        for boxes in [ours(4000, 224, 224, min_object_covered=covered)]
    }
    assert 0.1 <= smallest[0.1] < 0.103
    assert 0.08 <= smallest[0.0] < 0.083


def test_whole_image_when_no_attempt_succeeds():
    boxes = ours(3, 40, 40, area_range=(0.9, 1.0), aspect_range=(3.0, 4.0))
    np.testing.assert_array_equal(boxes, [[0, 0, 40, 40]] * 3)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 700), width=st.integers(1, 700), index=st.integers(0, 2**32 - 1))
def test_boxes_lie_in_the_image(height, width, index):
    keys = keys_lib.example_keys(0, 0, [index], 0)
    y, x, h, w = crop.sample_crop_boxes(keys, [height], [width]).numpy()[0]
    assert y >= 0 and x >= 0 and h >= 1 and w >= 1
    assert y + h <= height and x + w <= width


def test_box_depends_on_epoch_view_and_op_and_not_on_its_neighbours():
    index = np.arange(64)

    def boxes(seed=0, epoch=0, view=0, op=0, index=index):
        keys = keys_lib.example_keys(seed, epoch, index, view)
        sizes = tf.fill([len(index)], 50)
        return crop.sample_crop_boxes(keys, sizes, sizes, op=op).numpy()

    np.testing.assert_array_equal(boxes()[10:20], boxes(index=index[10:20]))
    for other in (boxes(seed=1), boxes(epoch=1), boxes(view=1), boxes(op=1)):
        assert (boxes() != other).any(axis=1).mean() > 0.9


BOXES = [(0, 0, 37, 53), (5, 7, 1, 1), (3, 0, 20, 9), (0, 40, 30, 13), (36, 0, 1, 53), (1, 2, 7, 7)]


@pytest.mark.parametrize("size", [8, 32, 70])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_and_resize_is_tensorflows_bicubic(size, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(BOXES), 37, 53, 3)).astype(np.uint8)
    as_float = images.astype(np.float32) / 255
    given = tf.constant(images if dtype == np.uint8 else as_float)
    resized = crop.crop_and_resize(given, tf.constant(BOXES), size)
    assert resized.dtype == tf.float32
    for image, (y, x, h, w), result in zip(as_float, BOXES, resized, strict=True):
        expected = tf.image.resize(image[y : y + h, x : x + w], (size, size), method="bicubic")
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-3)


def test_whole_box_at_its_own_size_changes_nothing(images):
    boxes = tf.tile([[0, 0, 24, 24]], [8, 1])
    np.testing.assert_allclose(crop.crop_and_resize(images, boxes, 24), images, rtol=0, atol=1e-6)


def test_crop_of_images_of_unknown_size_in_a_data_set():
    def example(index):
        image = tf.ones(tf.stack([20 + tf.cast(index, tf.int32), 30, 3]))[None]
        key = keys_lib.example_keys(0, 0, index[None], 0)
        return crop.random_resized_crop(image, key, size=16)[0]

    dataset = tf.data.Dataset.range(3).map(example)
    assert dataset.element_spec.shape == (16, 16, 3)
    for image in dataset:
        np.testing.assert_allclose(image, np.ones((16, 16, 3)), rtol=0, atol=1e-6)


def test_random_resized_crop_is_pure_and_in_range(images, keys, assert_pure):
    op = functools.partial(crop.random_resized_crop, size=16)
    assert_pure(lambda images, keys: op(images, keys), images, keys)
    checkers = tf.cast(tf.range(24)[:, None, None] + tf.range(24)[:, None] & 1, tf.float32)
    cropped = op(tf.tile(checkers[None], [8, 1, 1, 3]), keys).numpy()
    assert cropped.min() >= 0.0 and cropped.max() <= 1.0


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (256, 256, (16, 16, 224, 224)),
        (500, 375, (86, 24, 328, 328)),
        (375, 500, (24, 86, 328, 328)),
        (36, 100, (2, 34, 32, 32)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_center_crop_box(height, width, expected):
    """By hand: the side is the even-rounded 0.875 of the shorter one, the offset rounds up."""
    assert tuple(int(value) for value in crop.center_crop_box(height, width)) == expected


def test_center_crop_box_of_tensors():
    boxes = crop.center_crop_box(tf.constant([256, 500]), tf.constant([256, 375]), proportion=1.0)
    np.testing.assert_array_equal(tf.stack(boxes, axis=1), [[0, 0, 256, 256], [63, 0, 375, 375]])


def test_flip_mirrors_left_to_right(images, keys):
    flipped = crop.flip(images, keys, op=1, probability=1.0)
    np.testing.assert_array_equal(flipped, images.numpy()[:, :, ::-1])
