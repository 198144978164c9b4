"""The other ops that the SimCLR paper compares (section 3, figure 4), for repeating its study.

The paper's appendix A gives parameters for crop, colour and blur only. For the ops here, each
docstring states the scale chosen for strength 1.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment.crop import MAX_ATTEMPTS, random_resized_crop
from simclr_tf.augment.ops import policy_op


@policy_op("crop", max_strength=None)
def crop(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 1.0, strength: float = 1.0
) -> tf.Tensor:
    """Resamples a random box of an image to the image's size (figure 4b, c).

    A view has already been cropped when its policy starts. This op makes cropping one of the ops
    that figure 5 pairs, and gives it a place among them.

    Args:
        images: float32 [N, H, H, C] in [0, 1], square, H static.
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is cropped.
        strength: ignored; part of every policy op's signature.

    Returns:
        float32 [N, H, H, C] in [0, 1].
    """
    del strength
    # The box takes the numbers before this one.
    draws = keys_lib.uniform(keys, op, 2 * MAX_ATTEMPTS + 3)[:, -1]

    def resample(images: tf.Tensor) -> tf.Tensor:
        return random_resized_crop(images, keys, size=images.shape[1], op=op)

    return keys_lib.apply_to_drawn(draws, probability, resample, images)


@policy_op("cutout")
def cutout(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Sets a square at a random place to zero (figure 4g; DeVries & Taylor, 2017).

    The square's centre is a uniformly drawn pixel, so part of it may lie outside the image.

    Args:
        images: float32 [N, H, W, C], H and W static.
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is changed.
        strength: the square's side as a multiple of half the shorter side of the image; at 1 it
            is 16 pixels of 32, DeVries & Taylor's choice for CIFAR-10.

    Returns:
        float32 [N, H, W, C].
    """
    height, width = images.shape[1:3]
    side = round(strength * min(height, width) / 2)
    draws = keys_lib.uniform(keys, op, 3)

    def inside(draw: tf.Tensor, extent: int) -> tf.Tensor:
        start = keys_lib.integers(draw, extent)[:, None] - side // 2
        pixels = tf.range(extent)
        return (pixels >= start) & (pixels < start + side)

    def cut(images: tf.Tensor) -> tf.Tensor:
        square = inside(draws[:, 1], height)[:, :, None] & inside(draws[:, 2], width)[:, None, :]
        return tf.where(square[..., None], 0.0, images)

    return keys_lib.apply_to_drawn(draws[:, 0], probability, cut, images)


@policy_op("rotate90", max_strength=None)
def rotate90(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Turns an image counter-clockwise by 90, 180 or 270 degrees, equally likely (figure 4f).

    Args:
        images: [N, H, H, C], square, H static.
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is turned.
        strength: ignored; part of every policy op's signature.

    Returns:
        [N, H, H, C].

    Raises:
        ValueError: if the images are not square.
    """
    del strength
    height, width = images.shape[1:3]
    if height != width:
        raise ValueError(
            "rotate90 needs square images. "
            f"Received: height={height}, width={width}. Crop to a square before it."
        )
    draws = keys_lib.uniform(keys, op, 2)
    turns = keys_lib.integers(draws[:, 1], 3)[:, None, None, None]

    def turn(images: tf.Tensor) -> tf.Tensor:
        transposed = tf.transpose(images, [0, 2, 1, 3])
        by_90, by_270 = tf.reverse(transposed, axis=[1]), tf.reverse(transposed, axis=[2])
        by_180 = tf.reverse(images, axis=[1, 2])
        return tf.where(turns == 0, by_90, tf.where(turns == 1, by_180, by_270))

    return keys_lib.apply_to_drawn(draws[:, 0], probability, turn, images)


@policy_op("gaussian_noise")
def gaussian_noise(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Adds independent Gaussian noise to every channel of every pixel, and clips (figure 4h).

    Args:
        images: float32 [N, H, W, C] in [0, 1], H, W and C static.
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is changed.
        strength: the noise has a standard deviation of 0.1 * strength.

    Returns:
        float32 [N, H, W, C] in [0, 1].
    """
    height, width, channels = images.shape[1:]
    draws = keys_lib.uniform(keys, op, 1)[:, 0]

    def add_noise(images: tf.Tensor) -> tf.Tensor:
        noise = keys_lib.normal(keys, op, height * width * channels)
        noisy = images + 0.1 * strength * tf.reshape(noise, [-1, height, width, channels])
        return tf.clip_by_value(noisy, 0.0, 1.0)

    return keys_lib.apply_to_drawn(draws, probability, add_noise, images)


@policy_op("sobel")
def sobel(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.5, strength: float = 1.0
) -> tf.Tensor:
    """Replaces each channel by the length of its Sobel gradient, clipped (figure 4j).

    Args:
        images: float32 [N, H, W, C] in [0, 1].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is changed.
        strength: factor of the gradient's length, which is up to 4 * sqrt(2) before clipping.

    Returns:
        float32 [N, H, W, C] in [0, 1].
    """
    draws = keys_lib.uniform(keys, op, 1)[:, 0]

    def edges(images: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT")
        above, below = padded[:, :-2], padded[:, 2:]
        vertical = below - above
        vertical = vertical[:, :, :-2] + 2.0 * vertical[:, :, 1:-1] + vertical[:, :, 2:]
        smoothed = above + 2.0 * padded[:, 1:-1] + below
        horizontal = smoothed[:, :, 2:] - smoothed[:, :, :-2]
        length = tf.sqrt(tf.square(vertical) + tf.square(horizontal))
        return tf.clip_by_value(strength * length, 0.0, 1.0)

    return keys_lib.apply_to_drawn(draws, probability, edges, images)
