"""Crops: choosing a box of an image, and resampling it to a square by bicubic interpolation.

Shapes: N images, H W C image, S side of the output.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment import separable
from simclr_tf.augment.ops import policy_op

# Boxes tried for each image, as by `tf.image.sample_distorted_bounding_box`.
MAX_ATTEMPTS = 100


def _heights_of_attempts(
    draws: tf.Tensor,
    aspects: tf.Tensor,
    min_area: tf.Tensor,
    max_area: tf.Tensor,
    heights: tf.Tensor,
    widths: tf.Tensor,
) -> tf.Tensor:
    """Draws a crop height for each attempt, uniform between the smallest and largest area's."""
    lowest = tf.cast(tf.round(tf.sqrt(min_area / aspects)), tf.int32)
    highest = tf.round(tf.sqrt(max_area / aspects))
    float_widths = tf.cast(widths, tf.float32)
    too_wide = tf.round(highest * aspects) > float_widths
    widest = tf.floor((float_widths + 0.5) / aspects)
    widest -= tf.cast(tf.round(widest * aspects) > float_widths, tf.float32)
    highest = tf.minimum(tf.cast(tf.where(too_wide, widest, highest), tf.int32), heights)
    lowest = tf.minimum(lowest, highest)
    return lowest + keys_lib.integers(draws, highest - lowest + 1)


def sample_crop_boxes(
    keys: tf.Tensor,
    heights: tf.Tensor,
    widths: tf.Tensor,
    *,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
    min_object_covered: float = 0.1,
    max_attempts: int = MAX_ATTEMPTS,
    op: int = 0,
) -> tf.Tensor:
    """Draws random crop boxes, distributed as those of SimCLR's reference code.

    The distribution equals that of `tf.image.sample_distorted_bounding_box` with the whole image as
    its one bounding box, roundings included: an attempt draws an aspect ratio (width / height) and
    then a height, both uniformly; the first attempt that satisfies every condition gives the box.
    If none does, the box is the whole image. The aspect range is absolute: the reference multiplies
    it by the aspect of its output, which is square here.

    A box must also cover `min_object_covered` of the image, so with the reference's 0.1 the
    smallest area is 0.10 and not the 0.08 of the paper (appendix A); 0 gives the paper's.

    Args:
        keys: uint32 [N, 2].
        heights: int32 [N], the images' heights in pixels.
        widths: int32 [N], the images' widths in pixels.
        area_range: smallest and largest area of a box, as fractions of the image's.
        aspect_range: smallest and largest width / height of a box.
        min_object_covered: fraction of the image that a box must cover.
        max_attempts: boxes tried for each image.
        op: id of this op among those that use these keys.

    Returns:
        int32 [N, 4]: y, x, height, width.
    """
    draws = keys_lib.uniform(keys, op, 2 + 2 * max_attempts)
    heights, widths = tf.cast(heights, tf.int32)[:, None], tf.cast(widths, tf.int32)[:, None]
    image_area = tf.cast(heights * widths, tf.float32)
    min_area, max_area = area_range[0] * image_area, area_range[1] * image_area

    low, high = aspect_range
    aspects = low + draws[:, 2 : 2 + max_attempts] * (high - low)
    height_draws = draws[:, 2 + max_attempts :]
    h = _heights_of_attempts(height_draws, aspects, min_area, max_area, heights, widths)

    def size_at(h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        w = tf.cast(tf.round(tf.cast(h, tf.float32) * aspects), tf.int32)
        return w, tf.cast(h * w, tf.float32)

    w, area = size_at(h)
    h += tf.cast(area < min_area, tf.int32)
    w, area = size_at(h)
    h -= tf.cast(area > max_area, tf.int32)
    w, area = size_at(h)

    accepted = (area >= min_area) & (area <= max_area) & (h <= heights) & (w <= widths)
    # The kernel requires area / image_area >= min_object_covered. A compiler that knows the images'
    # size multiplies by the reciprocal instead, so that either of two equal sides may come out
    # larger. The margin lets equal sides pass.
    covered = min_object_covered * (1.0 - 2.0**-20) * image_area
    accepted &= (area >= 1.0) & (area >= covered)

    attempts = tf.range(max_attempts)
    first = tf.reduce_min(tf.where(accepted, attempts, max_attempts), axis=1, keepdims=True)
    is_first = tf.cast(attempts == first, tf.int32)
    h = tf.reduce_sum(h * is_first, axis=1, keepdims=True)
    w = tf.reduce_sum(w * is_first, axis=1, keepdims=True)
    none = first == max_attempts
    h, w = tf.where(none, heights, h), tf.where(none, widths, w)
    # Like the kernel, never draw the last position, H - h.
    y = keys_lib.integers(draws[:, :1], heights - h)
    x = keys_lib.integers(draws[:, 1:2], widths - w)
    return tf.concat([y, x, h, w], axis=1)


def _cubic(distance: tf.Tensor) -> tf.Tensor:
    """Returns Keys' cubic convolution kernel with a = -0.5 at non-negative distances."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return tf.where(distance < 1.0, near, tf.where(distance < 2.0, far, 0.0))


def _interpolation_matrices(
    starts: tf.Tensor, lengths: tf.Tensor, size: int, extent: tf.Tensor
) -> tf.Tensor:
    """Returns float32 weights [N, S, extent] that map pixels start..start+length-1 to S pixels."""
    centers = (tf.range(size, dtype=tf.float32) + 0.5)[None, :, None]
    length = tf.cast(lengths, tf.float32)[:, None, None]
    source = centers * (length / size) - 0.5
    pixels = tf.cast(tf.range(extent) - starts[:, None, None], tf.float32)
    weights = _cubic(tf.abs(source - pixels))
    weights = tf.where((pixels >= 0.0) & (pixels < length), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def crop_and_resize(images: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Resamples boxes of images to squares by bicubic interpolation, without antialiasing.

    Equals `tf.image.resize(crop, (size, size), method='bicubic')` of each crop, up to TensorFlow's
    rounding of the weights to a table of 1024 entries. Two matrix products with interpolation
    matrices of each image let one batch hold boxes of all sizes.

    Args:
        images: [N, H, W, C], uint8 (converted to [0, 1]) or float32.
        boxes: int32 [N, 4]: y, x, height, width, within the images.
        size: side of the output.

    Returns:
        float32 [N, size, size, C], slightly outside [0, 1] where the interpolation overshoots.
    """
    if images.dtype != tf.float32:
        images = tf.image.convert_image_dtype(images, tf.float32)
    y, x, h, w = tf.unstack(boxes, axis=1)
    rows = _interpolation_matrices(y, h, size, tf.shape(images)[1])
    columns = _interpolation_matrices(x, w, size, tf.shape(images)[2])
    return separable.apply(images, rows, columns)


def from_levels(images: tf.Tensor) -> tf.Tensor:
    """Scales float levels, 0 to 255 and beyond by overshoot, to float32 in [0, 1]."""
    return tf.clip_by_value(images * (1.0 / 255.0), 0.0, 1.0)


def random_resized_crop(
    images: tf.Tensor,
    keys: tf.Tensor,
    *,
    size: int,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
    min_object_covered: float = 0.1,
    op: int = 0,
) -> tf.Tensor:
    """Resamples a random box of each image to a square: SimCLR's crop (paper, appendix A).

    Args:
        images: [N, H, W, C], uint8 or float32 in [0, 1].
        keys: uint32 [N, 2].
        size: side of the output.
        area_range: as in `sample_crop_boxes`.
        aspect_range: as in `sample_crop_boxes`.
        min_object_covered: as in `sample_crop_boxes`.
        op: id of this op among those that use these keys.

    Returns:
        float32 [N, size, size, C] in [0, 1].
    """
    count, height, width, _ = tf.unstack(tf.shape(images))
    boxes = sample_crop_boxes(
        keys,
        tf.fill([count], height),
        tf.fill([count], width),
        area_range=area_range,
        aspect_range=aspect_range,
        min_object_covered=min_object_covered,
        op=op,
    )
    return tf.clip_by_value(crop_and_resize(images, boxes, size), 0.0, 1.0)


def center_crop_box(
    height: tf.Tensor | int, width: tf.Tensor | int, proportion: float = 0.875
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the central square for evaluation, `proportion` of the image's shorter side.

    Args:
        height: integer, any shape.
        width: integer, the same shape.
        proportion: share of the shorter side that is kept; 0.875 in the reference.

    Returns:
        y, x, height, width: int32, each of the inputs' shape.
    """
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.cast(tf.round(proportion * shorter), tf.int32)
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


@policy_op("flip", max_strength=None)
def flip(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Mirrors drawn images left to right (paper, appendix A).

    Args:
        images: [N, H, W, C].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is mirrored.
        strength: ignored; part of every policy op's signature.

    Returns:
        [N, H, W, C].
    """
    del strength
    draws = keys_lib.uniform(keys, op, 1)[:, 0]
    return keys_lib.choose(draws < probability, tf.reverse(images, axis=[2]), images)
