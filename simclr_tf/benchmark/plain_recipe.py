"""SimCLR's recipe as google-research/simclr writes it, with stock `tf.image` ops on one image.

The baseline of `tools/benchmark.py input`: the same policy as the recipe's, op for op, drawn by
TensorFlow's stateful generators as in the reference. Written again from the description of the
reference, for measurements only: its views cannot be repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, PolicyOp
from simclr_tf.errors import RequestError


def views_of_encoded(encoded: tf.Tensor, augmentation: Augmentation, size: int) -> tf.Tensor:
    """Returns two views of a JPEG, decoding only each crop, float32 [S, S, 6]."""
    shape = tf.image.extract_jpeg_shape(encoded)

    def view() -> tf.Tensor:
        begin, extent = _crop_box(shape, augmentation)
        window = tf.concat([begin[:2], extent[:2]], axis=0)
        pixels = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        return _view(tf.image.convert_image_dtype(pixels, tf.float32), augmentation, size)

    return tf.concat([view(), view()], axis=2)


def views_of_decoded(encoded: tf.Tensor, augmentation: Augmentation, size: int) -> tf.Tensor:
    """Returns two views of a JPEG decoded once in full, as the reference's data sets do it."""
    return views_of_pixels(tf.io.decode_jpeg(encoded, channels=3), augmentation, size)


def views_of_pixels(pixels: tf.Tensor, augmentation: Augmentation, size: int) -> tf.Tensor:
    """Returns two views of a decoded image, uint8 [H, W, 3], as float32 [S, S, 6]."""
    image = tf.image.convert_image_dtype(pixels, tf.float32)

    def view() -> tf.Tensor:
        crop = tf.slice(image, *_crop_box(tf.shape(image), augmentation))
        return _view(crop, augmentation, size)

    return tf.concat([view(), view()], axis=2)


def _crop_box(shape: tf.Tensor, augmentation: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        min_object_covered=augmentation.min_object_covered,
        aspect_ratio_range=augmentation.aspect_range,
        area_range=augmentation.area_range,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin, extent


def _view(crop: tf.Tensor, augmentation: Augmentation, size: int) -> tf.Tensor:
    image = tf.image.resize(crop, [size, size], method="bicubic")
    for entry in augmentation.policy:
        image = plain_op(entry)(image)
    return tf.clip_by_value(tf.reshape(image, [size, size, 3]), 0.0, 1.0)


def plain_op(entry: PolicyOp) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the reference's form of an op of a policy: float32 [S, S, 3] -> the same.

    Raises:
      RequestError: the reference has no such op.
    """
    ops = {
        "flip": _flip,
        "color_jitter": _color_jitter,
        "color_jitter_v1": _color_jitter_v1,
        "grayscale": _grayscale,
        "blur": _blur,
    }
    if entry.name not in ops:
        raise RequestError(
            f"The plain recipe has no {entry.name!r}. Measure a policy of {', '.join(ops)}: "
            "--gin_bindings='augmentation.policy = [...]'."
        )
    return lambda image: _sometimes(
        entry.probability, lambda: ops[entry.name](image, entry.strength), image
    )


def _sometimes(probability: float, changed: Callable[[], tf.Tensor], image: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.random.uniform([]) < probability, changed, lambda: image)


def _flip(image: tf.Tensor, strength: float) -> tf.Tensor:
    del strength
    return tf.image.flip_left_right(image)


def _color_jitter(image: tf.Tensor, strength: float) -> tf.Tensor:
    def brightness(image: tf.Tensor) -> tf.Tensor:
        factor = tf.random.uniform([], max(1.0 - 0.8 * strength, 0.0), 1.0 + 0.8 * strength)
        return image * factor

    return _jitter(image, strength, brightness)


def _color_jitter_v1(image: tf.Tensor, strength: float) -> tf.Tensor:
    return _jitter(image, strength, lambda image: tf.image.random_brightness(image, 0.8 * strength))


def _jitter(image: tf.Tensor, strength: float, brightness: Callable) -> tf.Tensor:
    low, high = 1.0 - 0.8 * strength, 1.0 + 0.8 * strength
    distortions = (
        brightness,
        lambda image: tf.image.random_contrast(image, low, high),
        lambda image: tf.image.random_saturation(image, low, high),
        lambda image: tf.image.random_hue(image, 0.2 * strength),
    )
    order = tf.random.shuffle(tf.range(4))
    for place in range(4):
        branches = [lambda op=op, image=image: op(image) for op in distortions]
        image = tf.clip_by_value(tf.switch_case(order[place], branches), 0.0, 1.0)
    return image


def _grayscale(image: tf.Tensor, strength: float) -> tf.Tensor:
    del strength
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def _blur(image: tf.Tensor, strength: float) -> tf.Tensor:
    radius = image.shape[0] // 10 // 2
    offsets = tf.cast(tf.range(-radius, radius + 1), tf.float32)
    sigma = tf.random.uniform([], 0.1 * strength, 2.0 * strength)
    weights = tf.exp(-tf.square(offsets) / (2.0 * tf.square(sigma)))
    weights = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], [1, 1, 3, 1])
    blurred = image[None]
    for kernel in (weights, tf.transpose(weights, [1, 0, 2, 3])):
        blurred = tf.nn.depthwise_conv2d(blurred, kernel, [1, 1, 1, 1], "SAME")
    return tf.clip_by_value(blurred[0], 0.0, 1.0)
