"""Colour distortion: jitter of brightness, contrast, saturation and hue; grayscale; solarization.

Every example has its own parameters and its own order of the four. On an accelerator a batch takes
a few dense elementwise ops; a single example runs each of the four once, in turn, which is less
work. Inside the jitter images are four-dimensional with the channels first, where the maximum and
the minimum over channels are fastest.

Shapes: N images, H W image, 3 channels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment.ops import policy_op

# Above 1.25 the lower end of the range 1 ± 0.8 · strength would be negative.
MAX_STRENGTH = 1.25

_ORDERS = tuple(itertools.permutations(range(4)))
_GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)


def _value_and_chroma(planes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the largest channel, and largest minus smallest, by maxima instead of a reduction."""
    red, green, blue = tf.unstack(planes)
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, value - tf.minimum(tf.minimum(red, green), blue)


def _rotate_hue(planes: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
    """Adds to the hue of the HSV cone; value (the maximum) and chroma stay unchanged.

    Args:
        planes: float32 [3, N, H, W].
        deltas: float32 [N, 1, 1], in turns.
    """
    red, green, blue = tf.unstack(planes)
    value, chroma = _value_and_chroma(planes)
    is_red, is_green = value == red, value == green
    difference = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    sector = tf.where(is_red, 0.0, tf.where(is_green, 2.0, 4.0))
    hue = sector + tf.math.divide_no_nan(difference, chroma) + 6.0 * deltas
    phase = tf.constant([5.0, 3.0, 1.0])[:, None, None, None] + hue
    phase -= 6.0 * tf.floor(phase * (1.0 / 6.0))
    return value - chroma * tf.clip_by_value(tf.minimum(phase, 4.0 - phase), 0.0, 1.0)


def _scale_about(
    planes: tf.Tensor, anchor: tf.Tensor | float, scale: tf.Tensor, shift: tf.Tensor | float = 0.0
) -> tf.Tensor:
    return tf.clip_by_value(anchor + (planes - anchor) * scale + shift, 0.0, 1.0)


def _channel_means(planes: tf.Tensor) -> tf.Tensor:
    """Returns means [3, N, 1, 1], over H first, because a CPU then adds whole rows at once."""
    means = tf.reduce_mean(planes, axis=2, keepdims=True)
    return tf.reduce_mean(means, axis=3, keepdims=True)


def _saturation_anchor(planes: tf.Tensor, factor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each pixel's largest channel, and its factor up to full saturation: [N, H, W]."""
    largest, chroma = _value_and_chroma(planes)
    return largest, tf.minimum(factor, tf.math.divide_no_nan(largest, chroma))


def adjust_colors(
    images: tf.Tensor,
    slots: tf.Tensor,
    *,
    brightness_scale: tf.Tensor,
    brightness_shift: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
    hue: tf.Tensor,
) -> tf.Tensor:
    """Adjusts brightness, contrast, saturation, hue in each example's order, clipping after each.

    With neutral values for the others (scales 1, shifts 0) each adjustment equals the function of
    the same name in `tf.image`.

    Brightness, contrast and saturation all scale a pixel about an anchor: zero, the mean of the
    image's channel, or the pixel's largest channel. So one slot computes any of the three at the
    cost of one, and hue, which is expensive, is computed once: three slots run before it and three
    after it, and each of the three ops acts in one of the six. A batch with a static size of one
    runs the four ops themselves, in its order.

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        slots: int32 [N, 4], the places (0 to 3) of brightness, contrast, saturation and hue.
        brightness_scale: float32 [N]; brightness is image * scale + shift.
        brightness_shift: float32 [N].
        contrast: float32 [N], factor of the deviation from the mean of the channel.
        saturation: float32 [N], factor of the saturation.
        hue: float32 [N], added to the hue, in turns.

    Returns:
        float32 [N, H, W, 3] in [0, 1].
    """

    def per_pixel(values: tf.Tensor) -> tf.Tensor:
        return values[:, None, None]

    planes = tf.transpose(images, [3, 0, 1, 2])
    if images.shape[0] == 1:
        planes = _in_turn(
            planes,
            slots[0],
            (
                lambda x: _scale_about(x, 0.0, brightness_scale[0], brightness_shift[0]),
                lambda x: _scale_about(x, _channel_means(x), contrast[0]),
                lambda x: _scale_about(x, *_saturation_anchor(x, saturation[0])),
                lambda x: tf.clip_by_value(_rotate_hue(x, hue[0]), 0.0, 1.0),
            ),
        )
        return tf.transpose(planes, [1, 2, 3, 0])

    hue_slot = slots[:, 3]
    before_hue = slots[:, :3] < hue_slot[:, None]
    ranks = tf.where(before_hue, slots[:, :3], slots[:, :3] - 1)
    scale_of_brightness, shift_of_brightness = map(per_pixel, (brightness_scale, brightness_shift))
    scale_of_contrast, scale_of_saturation = map(per_pixel, (contrast, saturation))

    def scale_about_anchor(planes: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
        is_brightness, is_contrast, is_saturation = map(per_pixel, tf.unstack(active, axis=1))
        largest, up_to_full_saturation = _saturation_anchor(planes, scale_of_saturation)
        mean = _channel_means(planes)
        anchor = tf.where(is_contrast, mean, tf.where(is_saturation, largest, 0.0))
        scale = tf.where(is_saturation, up_to_full_saturation, 1.0)
        scale = tf.where(is_contrast, scale_of_contrast, scale)
        scale = tf.where(is_brightness, scale_of_brightness, scale)
        shift = tf.where(is_brightness, shift_of_brightness, 0.0)
        return _scale_about(planes, anchor, scale, shift)

    for rank in range(3):
        planes = scale_about_anchor(planes, before_hue & (ranks == rank))
    planes = tf.clip_by_value(_rotate_hue(planes, per_pixel(hue)), 0.0, 1.0)
    for rank in range(3):
        planes = scale_about_anchor(planes, ~before_hue & (ranks == rank))
    return tf.transpose(planes, [1, 2, 3, 0])


def _in_turn(
    planes: tf.Tensor, slots: tf.Tensor, ops: Sequence[Callable[[tf.Tensor], tf.Tensor]]
) -> tf.Tensor:
    """Applies each op in its slot, in a loop, so that XLA compiles each op once."""
    order = tf.math.invert_permutation(slots)

    def apply_next(slot: tf.Tensor, planes: tf.Tensor):
        branches = [functools.partial(op, planes) for op in ops]
        return slot + 1, tf.switch_case(tf.gather(order, slot), branches)

    return tf.while_loop(lambda slot, _: slot < len(ops), apply_next, (0, planes))[1]


@policy_op("color_jitter", max_strength=MAX_STRENGTH)
@policy_op("color_jitter_v1", max_strength=MAX_STRENGTH, brightness="additive")
@policy_op("color_jitter_moco_v1", max_strength=MAX_STRENGTH, hue=0.8)
@policy_op("color_jitter_pirl", max_strength=MAX_STRENGTH, hue=0.4)
@policy_op("color_jitter_vicreg", max_strength=MAX_STRENGTH, saturation=0.4)
@policy_op("color_jitter_byol", max_strength=MAX_STRENGTH, brightness="additive", saturation=0.4)
def color_jitter(
    images: tf.Tensor,
    keys: tf.Tensor,
    *,
    op: int,
    probability: float = 0.8,
    strength: float = 1.0,
    brightness: str = "multiplicative",
    saturation: float = 0.8,
    hue: float = 0.2,
) -> tf.Tensor:
    """Applies SimCLR's colour jitter (paper, appendix A): four distortions in a random order.

    With s the strength, contrast and saturation are scaled by U(1 - 0.8s, 1 + 0.8s) and hue moves
    by U(-0.2s, 0.2s) turns; MoCo v1 has 0.8s there too, and PIRL 0.4s, with s = 0.5. BYOL and
    VICReg, with s = 0.5 too, scale saturation half as much, and BYOL shifts brightness. Strength 1
    is for ImageNet and 0.5 for CIFAR; 0 leaves images unchanged (the reference code then skips
    grayscale too: remove it from the policy to do the same).

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is distorted.
        strength: in [0, 1.25].
        brightness: 'multiplicative', by U(1 - 0.8s, 1 + 0.8s), as in SimCLRv2 and by the
            reference's default, or 'additive', by U(-0.8s, 0.8s), as in SimCLRv1.
        saturation: largest change of the saturation's factor at strength 1.
        hue: largest change of the hue at strength 1, in turns.

    Returns:
        float32 [N, H, W, 3] in [0, 1].

    Raises:
        ValueError: if the strength is out of range, or `brightness` is neither of these.
    """
    if not 0.0 <= strength <= MAX_STRENGTH:
        raise ValueError(
            f"color_jitter's strength must be between 0 and {MAX_STRENGTH}. "
            f"Received: strength={strength}. Use 1.0 (ImageNet) or 0.5 (CIFAR)."
        )
    if brightness not in ("multiplicative", "additive"):
        raise ValueError(
            "brightness must be 'multiplicative' or 'additive'. "
            f"Received: brightness={brightness!r}. Use 'multiplicative' as SimCLRv2 does."
        )
    draws = keys_lib.uniform(keys, op, 6)
    around_zero = (2.0 * draws[:, 1:5] - 1.0) * strength
    none = tf.zeros_like(draws[:, 0])
    brightness_change = 0.8 * around_zero[:, 0]
    multiplies = brightness == "multiplicative"

    def jitter(images: tf.Tensor) -> tf.Tensor:
        return adjust_colors(
            images,
            tf.gather(tf.constant(_ORDERS), keys_lib.integers(draws[:, 5], len(_ORDERS))),
            brightness_scale=1.0 + (brightness_change if multiplies else none),
            brightness_shift=none if multiplies else brightness_change,
            contrast=1.0 + 0.8 * around_zero[:, 1],
            saturation=1.0 + saturation * around_zero[:, 2],
            hue=hue * around_zero[:, 3],
        )

    return keys_lib.apply_to_drawn(draws[:, 0], probability, jitter, images)


@policy_op("grayscale", max_strength=None)
def grayscale(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.2, strength: float = 1.0
) -> tf.Tensor:
    """Drops the colour of drawn images, keeping three channels (paper, appendix A).

    Args:
        images: float32 [N, H, W, 3].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image loses its colour.
        strength: ignored; part of every policy op's signature.

    Returns:
        float32 [N, H, W, 3].
    """
    del strength
    draws = keys_lib.uniform(keys, op, 1)[:, 0]

    # Not a reduction, which on a CPU takes a separate pass over the image.
    red, green, blue = tf.split(images, 3, axis=-1)
    luma = _GRAY_WEIGHTS[0] * red + _GRAY_WEIGHTS[1] * green + _GRAY_WEIGHTS[2] * blue
    return keys_lib.choose(draws < probability, luma, images)


@policy_op("solarize", max_strength=None)
def solarize(
    images: tf.Tensor, keys: tf.Tensor, *, op: int, probability: float = 0.2, strength: float = 1.0
) -> tf.Tensor:
    """Inverts the bright channels of drawn images, x >= 0.5 (BYOL, appendix B).

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        keys: uint32 [N, 2].
        op: id of this op among those that use these keys.
        probability: that an image is solarized.
        strength: ignored; part of every policy op's signature.

    Returns:
        float32 [N, H, W, 3] in [0, 1].
    """
    del strength
    draws = keys_lib.uniform(keys, op, 1)[:, 0]
    # What is below 0.5 stays, and what is above is mirrored at it.
    return keys_lib.choose(draws < probability, tf.minimum(images, 1.0 - images), images)
