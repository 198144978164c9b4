"""If this breaks, views show other pixels than their boxes say."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import decode

BOXES = ((3, 5, 20, 31), (10, 0, 41, 17))


def image():
    y, x = np.mgrid[:64, :48]
    return np.stack([4 * y, 5 * x, (3 * (x + y)) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_views_are_the_boxes_of_the_decoded_image(form):
    """Up to the last column of the rectangle that is decoded, as `decode_crops` says."""
    encoded = getattr(tf.io, f"encode_{form}")(image())
    whole = tf.io.decode_image(encoded, channels=3).numpy()
    views = decode.decode_crops(encoded, tf.constant(BOXES), [16] * len(BOXES))
    for (y, x, h, w), view in zip(BOXES, views, strict=True):
        crop = whole[y : y + h, x : x + w].astype("f")
        expected = tf.image.resize(crop, [16, 16], method="bicubic").numpy()
        np.testing.assert_allclose(view[:, :-2], expected[:, :-2], atol=0.01)
        assert np.abs(view - expected).max() < 8


def test_the_rectangle_holds_all_boxes_and_no_more():
    corner, window = decode._window_around(tf.constant(BOXES))
    assert list(corner) == [3, 0] and list(window) == [3, 0, 48, 36]
