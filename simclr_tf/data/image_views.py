"""The views of images: crops, and the part of the policy that the host computes.

Views are numbered across groups: the second group's first view has the number after the first
group's last.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.host import box_sampler, view_augmenter
from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup, num_views
from simclr_tf.data import cache, decode, header


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageViews:
    """Makes views on the host; those of an image depend on (seed, epoch, index) alone.

    Attributes:
      groups: the views of each image, V in all.
      seed: the run's seed.
      on_host: whether the policy runs here, or later on the device.
      rounded: whether crops are rounded to uint8 levels.
      decoded: whether an image is stored as pixels, as `cache.hold` writes them.
    """

    groups: Sequence[ViewGroup]
    seed: int
    on_host: bool
    rounded: bool
    decoded: bool

    def keys(self, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Returns random keys uint32 [V*B, 2], view 1 of all images, then view 2, and so on."""
        views = range(num_views(self.groups))
        keys = [random_keys.example_keys(self.seed, epoch, index, view) for view in views]
        return tf.concat(keys, axis=0)

    def of_pixels(self, images: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Crops uint8 images [B, H, W, 3] in memory: by group, float32 [v*B, S, S, 3]."""

        def crops(part: _Part) -> tf.Tensor:
            repeated = tf.concat([images] * part.count, axis=0)
            return part.augmentation.crop(repeated, self._keys_of(part, keys), part.group.size)

        return self._by_group(crops)

    def augmented(self, crops: dict[str, tf.Tensor], keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Applies the policies to crops by group, float32 [v*B, S, S, 3] in [0, 1]."""

        def views(part: _Part) -> tf.Tensor:
            group = part.group
            own = _rows_of(crops[group.name], part.first_in_group, part.count, group.count)
            return part.augmentation(own, self._keys_of(part, keys))

        return self._by_group(views)

    def crops(self, stored: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> tuple:
        """Crops an image's views, V of [S, S, 3]: float32 levels, or uint8 if rounded."""
        image = cache.pixels(stored) if self.decoded else stored
        if self.decoded:
            shape, crop_out = tf.shape(image)[:2], decode.crops_of
        else:
            layout = header.layout(image)
            shape = header.upright_shape(layout)
            crop_out = functools.partial(decode.decode_crops, layout=layout)
        height, width = tf.unstack(shape)
        seed = tf.constant(self.seed, tf.int64)
        boxes = [
            box_sampler(part.augmentation, part.count, part.first)(
                seed, epoch, index, height, width
            )
            for part in self._parts()
        ]
        crops = crop_out(image, tf.concat(boxes, axis=0), self._sizes())
        return tuple(map(_rounded, crops) if self.rounded else crops)

    def finished(self, crops: tuple, epoch: tf.Tensor, index: tf.Tensor) -> tuple:
        """Augments an image's crops, to float32 in [0, 1], if the policy runs on the host."""
        if not self.on_host:
            return crops
        seed = tf.constant(self.seed, tf.int64)
        augmentations = [a for group in self.groups for a in group.augmentations]
        return tuple(
            view_augmenter(augmentation)(crop, seed, epoch, index, view)
            for view, (augmentation, crop) in enumerate(zip(augmentations, crops, strict=True))
        )

    def blank(self) -> tuple:
        """Returns black crops, which hold the place of an image that does not decode."""
        dtype = tf.uint8 if self.rounded else tf.float32
        return tuple(tf.zeros([size, size, 3], dtype) for size in self._sizes())

    def _sizes(self) -> list[int]:
        """Returns the side of each view."""
        return [group.size for group in self.groups for _ in group.augmentations]

    def _parts(self) -> Iterator[_Part]:
        first = 0
        for group in self.groups:
            first_in_group = 0
            for augmentation, count in group.parts():
                yield _Part(group, augmentation, first, first_in_group, count)
                first += count
                first_in_group += count

    def _by_group(self, make: Callable[[_Part], tf.Tensor]) -> dict[str, tf.Tensor]:
        """Joins, by group, what `make` returns for each part."""
        made: dict[str, list[tf.Tensor]] = {}
        for part in self._parts():
            made.setdefault(part.group.name, []).append(make(part))
        return {n: tf.concat(p, axis=0) if len(p) > 1 else p[0] for n, p in made.items()}

    def _keys_of(self, part: _Part, keys: tf.Tensor) -> tf.Tensor:
        return _rows_of(keys, part.first, part.count, num_views(self.groups))


class _Part(NamedTuple):
    """Successive views of a group that one augmentation makes."""

    group: ViewGroup
    augmentation: Augmentation
    first: int
    first_in_group: int
    count: int


def _rows_of(tensor: tf.Tensor, first: int, count: int, views: int) -> tf.Tensor:
    """Returns the rows of `count` views of a tensor that holds `views` views in order."""
    if count == views:
        return tensor
    return tf.concat(tf.split(tensor, views)[first : first + count], axis=0)


def _rounded(levels: tf.Tensor) -> tf.Tensor:
    """Rounds the levels of `decode.decode_crops` to the nearest of uint8's 256."""
    return tf.cast(tf.clip_by_value(levels, 0.0, 255.0) + 0.5, tf.uint8)
