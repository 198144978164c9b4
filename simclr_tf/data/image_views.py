"""The views of images: crops, and what of the policy the host computes."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.host import box_sampler, view_augmenter
from simclr_tf.augment.policy import Augmentation
from simclr_tf.data import cache, decode, header


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageViews:
    """How the host makes views; those of an image depend on (seed, epoch, index) alone.

    Attributes:
      augmentation: crop and policy.
      image_size: S, side of a view in pixels.
      seed: the run's seed.
      num_views: V, views of each image.
      on_host: whether the policy runs here, or later on the device.
      rounded: whether crops are rounded to uint8 levels.
      decoded: whether what is stored of an image are its pixels, as `cache.hold` writes them.
    """

    augmentation: Augmentation
    image_size: int
    seed: int
    num_views: int
    on_host: bool
    rounded: bool
    decoded: bool

    def keys(self, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Random keys of [view 1 of all images; view 2 of all images], uint32 [V*B, 2]."""
        views = range(self.num_views)
        keys = [random_keys.example_keys(self.seed, epoch, index, view) for view in views]
        return tf.concat(keys, axis=0)

    def of_pixels(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """A crop for each key of uint8 images [B, H, W, 3] in memory: float32 [V*B, S, S, 3]."""
        return self.augmentation.crop(
            tf.concat([images] * self.num_views, axis=0), keys, self.image_size
        )

    def crops(self, stored: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> tuple:
        """The crops of an image's views, V of [S, S, 3]: float32 levels, or uint8 if rounded."""
        image = cache.pixels(stored) if self.decoded else stored
        shape = tf.shape(image)[:2] if self.decoded else header.image_shape(image)
        height, width = tf.unstack(shape)
        sample = box_sampler(self.augmentation, self.num_views)
        boxes = sample(tf.constant(self.seed, tf.int64), epoch, index, height, width)
        crop_out = decode.crops_of if self.decoded else decode.decode_crops
        crops = crop_out(image, boxes, self.image_size)
        return tuple(map(_rounded, crops) if self.rounded else crops)

    def finished(self, crops: tuple, epoch: tf.Tensor, index: tf.Tensor) -> tuple:
        """An image's views by its crops: augmented, float32 in [0, 1], where that is done here."""
        if not self.on_host:
            return crops
        augment = view_augmenter(self.augmentation)
        seed = tf.constant(self.seed, tf.int64)
        return tuple(augment(crop, seed, epoch, index, view) for view, crop in enumerate(crops))

    def blank(self) -> tuple:
        """Black crops, which hold the place of an image that does not decode."""
        shape = [self.image_size, self.image_size, 3]
        return (tf.zeros(shape, tf.uint8 if self.rounded else tf.float32),) * self.num_views


def _rounded(levels: tf.Tensor) -> tf.Tensor:
    """Levels as `decode.decode_crops` gives them, to the nearest of the 256 of uint8."""
    return tf.cast(tf.clip_by_value(levels, 0.0, 255.0) + 0.5, tf.uint8)
