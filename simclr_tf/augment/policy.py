"""The augmentation policy: its ops, their order, probabilities and strengths.

A policy is a list, so a gin file can change every part of it:

    augmentation.policy = [
        ('flip', 0.5),
        ('color_jitter', 0.8, 0.5),
        ('grayscale', 0.2),
    ]

Shapes: N images, H W C image.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import gin
import tensorflow as tf

from simclr_tf.augment import (  # noqa: F401, for their ops
    ablation_ops,
    addons,
    blur,
    color,
    color_drop,
    crop,
)
from simclr_tf.augment.op_pair import op_pair
from simclr_tf.augment.ops import OPS, Op
from simclr_tf.errors import InvalidArgument

SIMCLR_POLICY = (
    ("flip", 0.5),
    ("color_jitter", 0.8, 1.0),
    ("grayscale", 0.2),
    ("blur", 0.5),
)

_ADDONS_PREFIX = "addons:"
# The crop draws with id 0, so the first op of a policy has id 1.
_CROP_OP = 0


@dataclasses.dataclass(frozen=True)
class PolicyOp:
    """A checked entry of a policy: `function` and `compiles` are those of the op `name`."""

    name: str
    probability: float
    strength: float
    function: Callable[..., tf.Tensor] = dataclasses.field(repr=False)
    compiles: bool = dataclasses.field(repr=False)


def _op_of(name: str) -> Op:
    if name.startswith(_ADDONS_PREFIX):
        return addons.op(name.removeprefix(_ADDONS_PREFIX))
    if name not in OPS:
        nearest = difflib.get_close_matches(name, OPS, n=1)
        advice = f"Did you mean {nearest[0]!r}?" if nearest else "Use one of these names."
        raise InvalidArgument(
            f"A policy op must be one of {', '.join(sorted(OPS))} or '{_ADDONS_PREFIX}NAME'. "
            f"Received: {name!r}. {advice}"
        )
    return OPS[name]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _parse_entry(entry: Any) -> PolicyOp:
    is_entry = isinstance(entry, (tuple, list)) and len(entry) in (2, 3)
    if not is_entry or not isinstance(entry[0], str):
        raise InvalidArgument(
            "A policy entry must be (name, probability) or (name, probability, strength). "
            f"Received: {entry!r}. Write it as ('color_jitter', 0.8, 1.0)."
        )
    name, probability = entry[:2]
    strength = entry[2] if len(entry) == 3 else 1.0
    op = _op_of(name)
    if not _is_number(probability) or not 0.0 <= probability <= 1.0:
        raise InvalidArgument(
            "The probability of a policy op must be a number between 0 and 1. "
            f"Received: probability={probability!r} in {entry!r}. Use 0.5 for every second image."
        )
    if op.max_strength is None and strength != 1.0:
        raise InvalidArgument(
            f"{name!r} has no strength. Received: strength={strength!r} in {entry!r}. "
            f"Write it as ({name!r}, {probability})."
        )
    largest = math.inf if op.max_strength is None else op.max_strength
    if not _is_number(strength) or not 0.0 < strength <= largest:
        range_text = "positive" if largest == math.inf else f"above 0 and at most {largest}"
        raise InvalidArgument(
            f"The strength of {name!r} must be a number {range_text}. "
            f"Received: strength={strength!r} in {entry!r}. "
            "Choose one in this range, or take the op out of the policy."
        )
    return PolicyOp(name, float(probability), float(strength), op.function, op.compiles)


def parse_policy(entries: Sequence[Any]) -> tuple[PolicyOp, ...]:
    """Checks the entries of a policy and looks up their ops.

    Args:
        entries: (name, probability) or (name, probability, strength) each; a name is one of `OPS`,
            or 'addons:NAME' for an op of tensorflow-addons. Strength 1 is the default.

    Returns:
        The ops, in the order of the entries.

    Raises:
        ValueError: if an entry is malformed, or its name, probability or strength is invalid.
        ImportError: if an entry needs tensorflow-addons, which is not installed.
    """
    return tuple(_parse_entry(entry) for entry in entries)


def _check_channels(images: tf.Tensor) -> None:
    if images.shape.rank != 4 or images.shape[-1] != 3:
        raise InvalidArgument(
            "Augmentation needs a batch of images with 3 channels, [N, H, W, 3]. "
            f"Received: shape={images.shape}. "
            "Decode to RGB (tf.image.grayscale_to_rgb makes one channel three)."
        )


def _check_result(name: str, changed: Any, images: tf.Tensor) -> None:
    """Raises InvalidArgument if an op returns anything but images as it received them."""
    fits = tf.is_tensor(changed) and changed.dtype == images.dtype
    if not fits or not changed.shape.is_compatible_with(images.shape):
        received = f"{changed.dtype.name} {changed.shape}" if tf.is_tensor(changed) else changed
        raise InvalidArgument(
            f"The op {name!r} must return images of the type and shape that it receives, "
            f"{images.dtype.name} {images.shape}. Received: {received!r}."
        )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A random crop and a policy of ops on its result: pure functions of images and keys.

    The crop is separate because it may run where images still differ in size.

    >>> always_flipped = augmentation(policy=(("flip", 1.0),))
    >>> black_and_white = tf.repeat(tf.constant([[[[0.0], [1.0]]]]), 3, axis=3)  # [1, 1, 2, 3]
    >>> keys = tf.zeros([1, 2], tf.uint32)
    >>> always_flipped(black_and_white, keys)[0, 0, :, 0].numpy().tolist()
    [1.0, 0.0]

    Attributes:
        policy: the ops, in order; an op's place is its id, so that no two ops share draws.
        random_crop: if False, the crop is the central square of the whole image's shorter side.
        area_range: areas of the random crop, as fractions of the image's.
        aspect_range: aspect ratios (width / height) of the random crop.
        min_object_covered: least fraction of the image that the random crop covers.
    """

    policy: tuple[PolicyOp, ...]
    random_crop: bool = True
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    min_object_covered: float = 0.1

    @property
    def compiles(self) -> bool:
        """Whether XLA compiles every op of the policy."""
        return all(entry.compiles for entry in self.policy)

    @property
    def words(self) -> str:
        """The crop and the ops in order, for the plan of a run."""
        return ", ".join([self.crop_words, *self.op_words])

    @property
    def crop_words(self) -> str:
        """The crop, for the plan of a run."""
        low, high = self.area_range
        return f"random crop of {low:.0%} to {high:.0%}" if self.random_crop else "central square"

    @property
    def op_words(self) -> list[str]:
        """The ops in order, for the plan of a run."""
        return [f"{op.name} {op.probability:g} x {op.strength:g}" for op in self.policy]

    def sample_boxes(self, keys: tf.Tensor, heights: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
        """Returns the box that each image's crop keeps.

        Args:
            keys: uint32 [N, 2].
            heights: int32 [N].
            widths: int32 [N].

        Returns:
            int32 [N, 4]: y, x, height, width.
        """
        if not self.random_crop:
            return tf.stack(crop.center_crop_box(heights, widths, proportion=1.0), axis=1)
        return crop.sample_crop_boxes(
            keys,
            heights,
            widths,
            area_range=self.area_range,
            aspect_range=self.aspect_range,
            min_object_covered=self.min_object_covered,
            op=_CROP_OP,
        )

    def crop(self, images: tf.Tensor, keys: tf.Tensor, size: int) -> tf.Tensor:
        """Crops images of one size to squares.

        Args:
            images: [N, H, W, 3], uint8 or float32 in [0, 1].
            keys: uint32 [N, 2].
            size: side of the output.

        Returns:
            float32 [N, size, size, 3] in [0, 1].
        """
        _check_channels(images)
        count, height, width, _ = tf.unstack(tf.shape(images))
        boxes = self.sample_boxes(keys, tf.fill([count], height), tf.fill([count], width))
        return tf.clip_by_value(crop.crop_and_resize(images, boxes, size), 0.0, 1.0)

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Applies the policy's ops in order, and clips.

        Args:
            images: float32 [N, H, W, 3] in [0, 1].
            keys: uint32 [N, 2].

        Returns:
            float32 [N, H, W, 3] in [0, 1].
        """
        _check_channels(images)
        for op, entry in enumerate(self.policy, start=_CROP_OP + 1):
            changed = entry.function(
                images, keys, op=op, probability=entry.probability, strength=entry.strength
            )
            _check_result(entry.name, changed, images)
            images = changed
        return tf.clip_by_value(images, 0.0, 1.0)


def _check_range(name: str, values: Sequence[float], largest: float) -> tuple[float, float]:
    ordered = len(values) == 2 and 0.0 < values[0] <= values[1] <= largest
    if not ordered:
        bound = "" if largest == math.inf else f" and at most {largest}"
        raise InvalidArgument(
            f"{name} must be two positive numbers, the smaller first{bound}. "
            f"Received: {name}={values!r}. Swap or correct its ends."
        )
    return float(values[0]), float(values[1])


@gin.configurable
def augmentation(
    policy: Annotated[Sequence[Any] | Callable[[], Sequence[Any]], op_pair] = SIMCLR_POLICY,
    area_range: Sequence[float] = (0.08, 1.0),
    aspect_range: Sequence[float] = (3 / 4, 4 / 3),
    min_object_covered: float = 0.1,
    random_crop: bool = True,
) -> Augmentation:
    """Returns SimCLR's augmentation for ImageNet (paper, appendix A); every part is configurable.

    Args:
        policy: entries as `parse_policy` takes them, or a function that returns them, such as
            @op_pair; for CIFAR, colour strength 0.5 and no blur.
        area_range: areas of the random crop, as fractions of the image's.
        aspect_range: aspect ratios (width / height) of the random crop.
        min_object_covered: the reference's 0.1 makes 0.10 the smallest area; 0 keeps 0.08.
        random_crop: if False, the crop is the central square.

    Returns:
        The augmentation.

    Raises:
        ValueError: if an argument is invalid; the message names it and says what to do.
    """
    if not 0.0 <= min_object_covered <= 1.0:
        raise InvalidArgument(
            "min_object_covered must be between 0 and 1. "
            f"Received: min_object_covered={min_object_covered}. The reference's is 0.1."
        )
    return Augmentation(
        policy=parse_policy(policy() if callable(policy) else policy),
        random_crop=random_crop,
        area_range=_check_range("area_range", area_range, 1.0),
        aspect_range=_check_range("aspect_range", aspect_range, math.inf),
        min_object_covered=min_object_covered,
    )
