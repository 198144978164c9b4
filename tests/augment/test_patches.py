"""If this breaks, patches overlap, miss a cell, or come in an order that is not random."""

import functools
import itertools

import gin
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.host import box_sampler
from simclr_tf.augment.patches import shuffled_patches
from simclr_tf.errors import InvalidArgument

# The whole image is the crop, so that its cells are known.
WHOLE = functools.partial(shuffled_patches, policy=(), area_range=(1.0, 1.0), aspect_range=(1, 1))


def keys_of(images: int, epoch: int = 0, first_view: int = 1, views: int = 9) -> tf.Tensor:
    index = tf.range(images, dtype=tf.int64)
    return tf.concat(
        [random_keys.example_keys(3, epoch, index, first_view + v) for v in range(views)], axis=0
    )


def boxes_of(patches, images: int, height: int, width: int, epoch: int = 0) -> np.ndarray:
    """[views, images, 4]."""
    views = patches.count
    heights, widths = (tf.fill([views * images], side) for side in (height, width))
    boxes = patches.sample_boxes(keys_of(images, epoch, views=views), heights, widths)
    return boxes.numpy().reshape(views, images, 4)


def cells_of(boxes: np.ndarray, side: int, grid: int = 3) -> np.ndarray:
    """The number of the cell that each box lies in, which must be one."""
    y, x, h, w = np.moveaxis(boxes, -1, 0)
    first = y * grid // side, x * grid // side
    last = ((y + h - 1) * grid // side, (x + w - 1) * grid // side)
    np.testing.assert_array_equal(first, last)
    return first[0] * grid + first[1]


def test_a_patch_of_the_papers_size_in_each_cell_of_the_papers_crop():
    boxes = boxes_of(WHOLE(), 300, 255, 255)
    np.testing.assert_array_equal(boxes[..., 2:], 64)
    cells = cells_of(boxes, 255)
    np.testing.assert_array_equal(np.sort(cells, axis=0), np.tile(np.arange(9)[:, None], (1, 300)))
    places = boxes[..., :2] % 85
    assert set(np.unique(places)) == set(range(22))  # 85 - 64 = 21


def test_every_order_is_as_likely():
    """Counts which cells come first and second on a grid of 2: there are 12 pairs."""
    cells = cells_of(boxes_of(WHOLE(grid=2, cell=10, patch=8), 2400, 20, 20), 20, grid=2)
    pairs = list(itertools.permutations(range(4), 2))
    counts = [np.sum((cells[0] == a) & (cells[1] == b)) for a, b in pairs]
    assert sum(counts) == 2400
    # Chi-squared of 11 degrees of freedom: below 38 but for once in 10,000 times.
    assert np.sum((np.array(counts) - 200.0) ** 2 / 200.0) < 38


def test_an_epoch_has_other_orders_and_an_image_always_the_same():
    first = boxes_of(WHOLE(), 20, 255, 255)
    np.testing.assert_array_equal(boxes_of(WHOLE(), 20, 255, 255), first)
    np.testing.assert_array_equal(boxes_of(WHOLE(), 3, 255, 255), first[:, :3])
    later = boxes_of(WHOLE(), 20, 255, 255, epoch=1)
    assert np.mean(cells_of(later, 255) == cells_of(first, 255)) < 0.3


def test_patches_share_one_crop():
    """Their cells fill a rectangle of 60 % to 100 % of the image, which differs among images."""
    boxes = boxes_of(shuffled_patches(policy=()), 200, 240, 300)
    ends = boxes[..., :2] + boxes[..., 2:]
    assert boxes.min() >= 0 and ends[..., 0].max() <= 240 and ends[..., 1].max() <= 300
    np.testing.assert_allclose(boxes[..., 2:], boxes[:1, :, 2:].repeat(9, axis=0), atol=1)
    sides = boxes[0, :, 2:] / 64 * 255
    areas = sides.prod(axis=1) / (240 * 300)
    assert 0.58 < areas.min() < 0.65 and 0.9 < areas.max() < 1.02
    spans = ends.max(axis=0) - boxes.min(axis=0)[:, :2]
    assert np.all(spans <= sides + 3) and np.all(spans >= sides * 0.7)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_tiny_images_have_patches_within(side):
    boxes = boxes_of(shuffled_patches(policy=()), 50, side, side + 1)
    assert boxes[..., :2].min() >= 0 and boxes[..., 2:].min() >= 1
    assert (boxes[..., 0] + boxes[..., 2]).max() <= side
    assert (boxes[..., 1] + boxes[..., 3]).max() <= side + 1


def test_host_and_device_cut_the_same():
    """The host draws the boxes of one image at a time, and the device those of a batch."""
    patches = shuffled_patches(policy=(("flip", 0.5),))
    whole = boxes_of(patches, 4, 60, 40)
    sample = box_sampler(patches, 9, 1)
    for i in range(4):
        numbers = (tf.constant(n, tf.int64) for n in (3, 0, i))
        np.testing.assert_array_equal(sample(*numbers, 60, 40), whole[:, i])
    pixels = tf.random.stateless_uniform([4, 60, 40, 3], [1, 2])
    keys = keys_of(4)

    @tf.function(jit_compile=True)
    def views(pixels, keys):
        return patches(patches.crop(tf.tile(pixels, [9, 1, 1, 1]), keys, 8), keys)

    eager = patches(patches.crop(tf.tile(pixels, [9, 1, 1, 1]), keys, 8), keys)
    np.testing.assert_allclose(views(pixels, keys), eager, atol=1e-5)


def test_each_patch_passes_the_policy_by_itself():
    patches = WHOLE(policy=(("grayscale", 0.5),))
    keys = keys_of(40)
    views = patches(tf.tile(tf.constant([[[[1.0, 0.0, 0.0]]]]), [360, 8, 8, 1]), keys)
    gray = np.all(views == views[..., :1], axis=(1, 2, 3)).reshape(9, 40)
    assert 0.4 < gray.mean() < 0.6
    assert np.mean(gray.all(axis=0) | ~gray.any(axis=0)) < 0.1


def test_gin_binds_its_parts_and_no_others():
    gin.parse_config("shuffled_patches.cell = 12\nshuffled_patches.patch = 8")
    gin.parse_config("augmentation.area_range = (0.1, 0.2)\naugmentation.random_crop = False")
    patches = shuffled_patches()
    assert (patches.cell, patches.patch, patches.count) == (12, 8, 9)
    assert patches.area_range == (0.6, 1.0) and patches.random_crop
    start = "random crop of 60% to 100%, 9 patches of 8 pixels in cells of 12, flip 0.5 x 1, "
    assert patches.words.startswith(start)


@pytest.mark.parametrize("settings", [{"patch": 86}, {"patch": 0}, {"grid": 1}])
def test_patches_fit_into_their_cells(settings):
    with pytest.raises(InvalidArgument, match="1 <= patch <= cell"):
        shuffled_patches(**settings)
