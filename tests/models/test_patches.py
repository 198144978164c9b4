"""If this breaks, patches are not those of the image, or lie in other places."""

import functools

import keras
import numpy as np
import pytest

from simclr_tf.errors import InvalidArgument
from simclr_tf.export.encoder_json import build_encoder
from simclr_tf.models.patches import cut, parts_of, patch_encoder
from simclr_tf.models.resnet import resnet
from tests.support.small_resnet import SMALL_DEPTH

NETWORK = functools.partial(resnet, SMALL_DEPTH, 0.125, normalization="layer_norm")


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, 3), np.float32)


@pytest.mark.parametrize(
    ("image", "size", "stride", "side"), [(260, 80, 36, 6), (32, 8, 4, 7), (12, 4, 4, 3)]
)
def test_patches_are_slices(image, size, stride, side):
    """The grids of the paper and of Lightning Bolts' CIFAR-10; and one without overlap."""
    x = images(2, image)
    expected = [
        picture[row : row + size, column : column + size]
        for picture in x
        for row in range(0, image - size + 1, stride)
        for column in range(0, image - size + 1, stride)
    ]
    assert len(expected) == 2 * side**2
    np.testing.assert_array_equal(cut(x, size, stride), expected)


def test_the_encoder_is_the_mean_over_patches():
    keras.utils.set_random_seed(0)
    encoder, x = patch_encoder(8, 4, NETWORK, image_size=16), images(2, 16)
    patches, network = parts_of(encoder)
    assert (patches.size, patches.stride) == (8, 4)
    found = encoder(x)
    for row, column in [(0, 0), (0, 2), (2, 1)]:
        patch = x[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
        expected = network(patch)["final_avg_pool"]
        np.testing.assert_allclose(found["patch_grid"][:, row, column], expected, rtol=1e-5)
    mean = np.mean(found["patch_grid"], axis=(1, 2))
    np.testing.assert_allclose(found["final_avg_pool"], mean, rtol=1e-5)
    # A checkpoint fits the network of whole images too, whose stem is that of a patch.
    assert [v.path for v in encoder.variables] == [v.path for v in NETWORK(image_size=8).variables]
    again = build_encoder(encoder.to_json())
    again.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(again(x), found["final_avg_pool"])


@pytest.mark.parametrize(("size", "stride"), [(80, 36), (8, 5), (8, 0), (0, 4)])
def test_patches_that_do_not_cover_the_image_are_refused(size, stride):
    with pytest.raises(InvalidArgument, match=f"must cover.*patches of {size} pixels"):
        patch_encoder(size, stride, NETWORK, image_size=32)


def test_an_encoder_of_whole_images_has_no_patches():
    with pytest.raises(InvalidArgument, match=r"pretrain.encoder = @patch_encoder"):
        parts_of(NETWORK(image_size=32))
