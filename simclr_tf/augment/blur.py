"""Gaussian blur with a separate standard deviation for each image."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment import separable
from simclr_tf.augment.ops import policy_op

# Output pixels of one product in `blur_one`: small next to the image, so that few factors are
# zeros, and large next to the kernel, so that few products are computed twice.
_BLOCK = 32


def blur_matrices(sigmas: tf.Tensor, radius: int, extent: int) -> tf.Tensor:
    """Returns banded matrices that convolve a line, zeros beyond it, with a truncated Gaussian.

    Args:
        sigmas: float32 [N], in pixels, positive.
        radius: of the kernel, in pixels; the 2 * radius + 1 weights sum to one.
        extent: pixels of the line.

    Returns:
        float32 [N, extent, extent].
    """
    precisions = -0.5 / tf.square(sigmas)
    squares = tf.square(tf.range(-radius, radius + 1, dtype=tf.float32))
    norms = tf.reduce_sum(tf.exp(squares * precisions[:, None]), axis=1)[:, None, None]
    pixels = tf.range(extent, dtype=tf.float32)
    distances = tf.abs(pixels[:, None] - pixels)
    weights = tf.exp(tf.square(distances) * precisions[:, None, None]) / norms
    # A product, because the compiler cannot read XLA's text of a large boolean constant.
    return weights * tf.cast(distances <= radius, tf.float32)


def blur_one(image: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Blurs one image as the matrices of `blur_matrices` do, with less work on a CPU.

    The kernel is the same everywhere, so one small matrix serves all blocks of a line, each padded
    by its neighbours within the radius. At 224 pixels that takes a quarter of the products.

    Args:
        image: float32 [H, W, C], static.
        sigma: float32 scalar, in pixels, positive.
        radius: of the kernel, in pixels.

    Returns:
        float32 [H, W, C].
    """
    window = _BLOCK + 2 * radius
    distances = (
        tf.range(window, dtype=tf.float32) - radius - tf.range(_BLOCK, dtype=tf.float32)[:, None]
    )
    weights = tf.exp(-0.5 * tf.square(distances / sigma))
    weights *= tf.cast(tf.abs(distances) <= radius, tf.float32)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)

    def along(planes: tf.Tensor, axis: int, product: str) -> tf.Tensor:
        extent = planes.shape[axis]
        starts = range(0, extent, _BLOCK)
        zeros = [[0, 0]] * 3
        zeros[axis] = [radius, radius + len(starts) * _BLOCK - extent]
        padded = tf.pad(planes, zeros)
        size = padded.shape.as_list()
        size[axis] = window
        windows = [tf.slice(padded, [i * (axis == a) for a in range(3)], size) for i in starts]
        blurred = tf.einsum(product, tf.stack(windows, axis), weights)
        shape = planes.shape.as_list()
        shape[axis] = len(starts) * _BLOCK
        return tf.slice(tf.reshape(blurred, shape), [0, 0, 0], planes.shape)

    planes = tf.transpose(image, [2, 0, 1])
    planes = along(planes, 1, "cbiw,oi->cbow")
    planes = along(planes, 2, "chbi,oi->chbo")
    return tf.transpose(planes, [1, 2, 0])


@policy_op("blur")
def gaussian_blur(
    images: tf.Tensor,
    keys: tf.Tensor,
    *,
    op: int,
    probability: float = 0.5,
    strength: float = 1.0,
    sigma_range: tuple[float, float] = (0.1, 2.0),
) -> tf.Tensor:
    """Blurs as SimCLR (paper, appendix A): sigma from U(0.1, 2.0), kernel a tenth of the side.

    Each image has its own sigma, as in the paper; the reference code draws one for the whole
    batch. As there, the radius is half of height // 10, so the kernel has 23 taps at 224 pixels,
    3 at 32 and 1, which blurs nothing, below 20; and pixels outside the image count as zero, so
    borders darken. The blur is two products with banded matrices, which XLA compiles well for every
    device (unlike a depthwise convolution with separate filters for each image). A batch with a
    static size of one takes products with smaller matrices.

    Args:
        images: float32 [N, H, W, C] in [0, 1], H and W static.
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is blurred.
        strength: factor of both ends of `sigma_range`, positive.
        sigma_range: of the standard deviation, in pixels.

    Returns:
        float32 [N, H, W, C] in [0, 1].

    Raises:
        ValueError: if a sigma could be zero or negative.
    """
    low, high = strength * sigma_range[0], strength * sigma_range[1]
    if not 0.0 < low <= high:
        raise ValueError(
            "gaussian_blur's range of sigma times its strength must be positive and ordered. "
            f"Received: sigma_range={sigma_range}, strength={strength}. "
            "To blur nothing, take the op out of the policy."
        )
    height, width = images.shape[1:3]
    radius = height // 10 // 2
    draws = keys_lib.uniform(keys, op, 2)
    sigmas = low + draws[:, 1] * (high - low)

    def blur(images: tf.Tensor) -> tf.Tensor:
        if images.shape[0] == 1:
            return tf.clip_by_value(blur_one(images[0], sigmas[0], radius)[None], 0.0, 1.0)
        rows, columns = (blur_matrices(sigmas, radius, extent) for extent in (height, width))
        return tf.clip_by_value(separable.apply(images, rows, columns), 0.0, 1.0)

    return keys_lib.apply_to_drawn(draws[:, 0], probability, blur, images)
