"""Patches of an image in random order: the views of a jigsaw puzzle.

Noroozi and Favaro, https://arxiv.org/abs/1603.09246; Misra and van der Maaten, PIRL,
https://arxiv.org/abs/1912.01991.

Shapes: N patches of B images, N = B * grid^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import gin
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.op_pair import op_pair
from simclr_tf.augment.policy import SIMCLR_POLICY, Augmentation, augmentation
from simclr_tf.errors import InvalidArgument

# Beyond the ids of a policy's ops.
_ORDER_OP, _PLACE_OP = 2**20, 2**20 + 1


@dataclasses.dataclass(frozen=True)
class ShuffledPatches(Augmentation):
    """All views of a group: a patch of each cell of a grid on one random crop, in random order.

    Crop and order are those of the key of an image's first view, a patch's place in its cell that
    of its own key. Each patch passes the policy by itself. A patch is cut out of the image without
    resampling the crop before, so cells and patches are rounded to the image's pixels.

    Attributes:
        grid: Cells on a side of the crop; a group has grid^2 views.
        cell: Side of a cell in pixels of a crop of `grid * cell` pixels.
        patch: Side of a patch in the same pixels, and as a view.
    """

    grid: int = 3
    cell: int = 85
    patch: int = 64

    @property
    def count(self) -> int:
        """Views of an image."""
        return self.grid**2

    @property
    def words(self) -> str:
        """The crop, the patches and the ops in order, for the plan of a run."""
        patches = f"{self.count} patches of {self.patch} pixels in cells of {self.cell}"
        return ", ".join([self.crop_words, patches, *self.op_words])

    def sample_boxes(self, keys: tf.Tensor, heights: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
        """Returns the box that each view keeps.

        Args:
            keys: uint32 [N, 2], view 1 of all B images, then view 2, and so on.
            heights: int32 [N].
            widths: int32 [N].

        Returns:
            int32 [N, 4]: y, x, height, width.
        """
        first = tf.reshape(keys, [self.count, -1, 2])[0]
        images = [tf.reshape(sides, [self.count, -1])[0] for sides in (heights, widths)]
        crops = super().sample_boxes(first, *images)
        y, x, height, width = tf.unstack(tf.tile(crops, [self.count, 1]), axis=1)
        order = _ranks(random_keys.uniform(first, _ORDER_OP, self.count))
        cells = tf.reshape(tf.transpose(order), [-1])
        places = random_keys.uniform(keys, _PLACE_OP, 2)
        top, tall = self._segment(height, cells // self.grid, places[:, 0])
        left, wide = self._segment(width, cells % self.grid, places[:, 1])
        return tf.stack([y + top, x + left, tall, wide], axis=1)

    def _segment(
        self, length: tf.Tensor, cell: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns where patches begin on a side of the crop, and their length, int32 [N] each.

        Args:
            length: int32 [N], the length of the side.
            cell: int32 [N], which of its cells, from 0 on.
            draws: float32 [N] in [0, 1).
        """
        whole = 2 * self.grid * self.cell
        size = tf.maximum((2 * self.patch * length + whole // 2) // whole, 1)
        begin, end = (i * length // self.grid for i in (cell, cell + 1))
        size = tf.minimum(size, tf.maximum(end - begin, 1))
        begin = tf.minimum(begin, length - size)
        return begin + random_keys.integers(draws, tf.maximum(end - begin - size, 0) + 1), size


@gin.configurable
def shuffled_patches(
    policy: Annotated[Sequence[Any] | Callable[[], Sequence[Any]], op_pair] = SIMCLR_POLICY,
    area_range: Sequence[float] = (0.6, 1.0),
    aspect_range: Sequence[float] = (3 / 4, 4 / 3),
    grid: int = 3,
    cell: int = 85,
    patch: int = 64,
) -> ShuffledPatches:
    """Returns PIRL's views for ImageNet: nine patches of 64 pixels of a crop of 255.

    Args:
        policy: Entries as in `augmentation`, which each patch passes by itself.
        area_range: Areas of the crop that is cut into patches, as fractions of the image's.
        aspect_range: Aspect ratios (width / height) of that crop.
        grid: Cells on a side of the crop.
        cell: Side of a cell in pixels of a crop of `grid * cell` pixels.
        patch: Side of a patch in the same pixels, and as a view. What the cell has beyond it keeps
            patches apart, so that edges do not tell which are neighbours.

    Raises:
        InvalidArgument: If patches do not fit into their cells, or another argument is invalid.
    """
    if not (2 <= grid <= 10 and 1 <= patch <= cell <= 10_000):
        raise InvalidArgument(
            "shuffled_patches needs 2 <= grid <= 10 and 1 <= patch <= cell <= 10,000. Received: "
            f"grid={grid}, cell={cell}, patch={patch}. The paper's are 3, 85 and 64."
        )
    crop = augmentation(policy, area_range, aspect_range, min_object_covered=0.0, random_crop=True)
    return ShuffledPatches(**vars(crop), grid=grid, cell=cell, patch=patch)


def _ranks(draws: tf.Tensor) -> tf.Tensor:
    """Returns the rank of each number of a row [B, n], the first of equal ones lower: int32."""
    own, other = draws[:, :, None], draws[:, None, :]
    earlier = tf.range(draws.shape[1])[:, None] > tf.range(draws.shape[1])[None, :]
    below = (other < own) | ((other == own) & earlier)
    return tf.reduce_sum(tf.cast(below, tf.int32), axis=2)
