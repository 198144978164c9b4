"""From encoded bytes to pixels: JPEG (also grayscale and CMYK), PNG, BMP and GIF, any size."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.augment.crop import center_crop_box


def image_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width of an encoded image, int32 [2]; a JPEG is not decoded for it."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(decode_any(encoded))[:2],
    )


def decode_any(encoded: tf.Tensor) -> tf.Tensor:
    """The whole image, uint8 [H, W, 3]; of a moving one the first frame."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def decode_crops(encoded: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts boxes out of an encoded image and resizes each to size x size, bicubically.

    A JPEG is decoded only where a box lies.

    Args:
      encoded: string scalar.
      boxes: int32 [V, 4], rows (y, x, height, width) in pixels.
      size: side of the result in pixels.

    Returns:
      float32 [V, size, size, 3] in [0, 1].
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _jpeg_crops(encoded, boxes, size),
        lambda: crops_of(decode_any(encoded), boxes, size),
    )


def crops_of(image: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """The same of a decoded image, uint8 [H, W, 3]."""
    boxes = tf.unstack(boxes)
    return _resized([tf.image.crop_to_bounding_box(image, *tf.unstack(b)) for b in boxes], size)


def decode_center(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """An encoded image as evaluation sees it: whole if it has the asked size, up to 32 pixels.

    Any other is cut to its centre and resized, as the reference does it.

    Args:
      encoded: string scalar.
      size: side of the result in pixels.

    Returns:
      float32 [size, size, 3] in [0, 1].
    """
    height, width = tf.unstack(image_shape(encoded))
    whole = tf.reduce_all([height == size, width == size, size <= 32])
    box = tf.where(whole, [0, 0, size, size], tf.stack(center_crop_box(height, width)))
    return decode_crops(encoded, box[tf.newaxis], size)[0]


def _jpeg_crops(encoded: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    crops = [tf.image.decode_and_crop_jpeg(encoded, b, channels=3) for b in tf.unstack(boxes)]
    return _resized(crops, size)


def _resized(crops: Sequence[tf.Tensor], size: int) -> tf.Tensor:
    """As the reference: to [0, 1] first, bicubic without antialiasing."""
    pixels = (tf.image.convert_image_dtype(crop, tf.float32) for crop in crops)
    resized = [tf.image.resize(p, [size, size], method="bicubic") for p in pixels]
    return tf.clip_by_value(tf.stack(resized), 0.0, 1.0)
