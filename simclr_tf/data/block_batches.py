"""Batches of views of encoded images: blocks are loaded in parallel and joined to batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import tensorflow as tf

from simclr_tf.data import first_valid
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.first_valid import SUBSTITUTES, Block
from simclr_tf.data.image_views import ImageViews
from simclr_tf.data.order import Order
from simclr_tf.data.positions import positions_in
from simclr_tf.data.source import Source


def block_batches(
    source: Source,
    views: ImageViews,
    order: Order,
    bad_images: BadImages,
    by_position: bool = False,
) -> tf.data.Dataset:
    """Returns endless batches, as `ViewsPipeline.dataset` describes them.

    Args:
      source: a source of encoded images.
      views: makes the views of an image.
      order: the order of the images.
      bad_images: records images that do not decode; others are tried in their place.
      by_position: whether 'index' is the position in the source, and not the number.
    """
    numbered = positions_in(source) if by_position else tf.identity
    elements, opened = source.blocks(order)
    blocks = order.host.per_replica // order.block_size

    def loaded(*element: tf.Tensor) -> tuple:
        block = opened(*element)
        return *_load(block, source, views, bad_images), block.asked, block.epoch

    def joined(images: tuple[tf.data.Dataset, ...], *numbers: tf.data.Dataset) -> tf.data.Dataset:
        """Joins a window of blocks to one batch, copying each group's views once."""
        of_views = iter(images)
        by_group = {
            group.name: functools.reduce(
                tf.data.Dataset.concatenate, itertools.islice(of_views, group.count)
            ).batch(group.count * blocks, drop_remainder=True)
            for group in views.groups
        }
        batched = (n.batch(blocks, drop_remainder=True) for n in numbers)
        return tf.data.Dataset.zip(by_group, *batched)

    def batch(images: dict[str, tf.Tensor], *numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        label, index, asked, epoch = (tf.reshape(n, [-1]) for n in numbers)
        return (
            {n: tf.reshape(group, [-1, *group.shape[2:]]) for n, group in images.items()}
            | {
                "labels": tf.cast(label, tf.int32),
                "index": tf.cast(numbered(index), tf.int32),
            }
            | ({} if views.on_host else {"keys": views.keys(epoch, asked)})
        )

    windows = elements.map(loaded, tf.data.AUTOTUNE).window(blocks, drop_remainder=True)
    return windows.flat_map(joined).map(batch)


def _load(block: Block, source: Source, views: ImageViews, bad_images: BadImages) -> tuple:
    """Loads the views of a block's images, V of [K, S, S, 3], labels and numbers, [K] each."""
    epoch, asked = block.epoch, block.asked

    def crops(n: tf.Tensor, stored: tf.Tensor, label: tf.Tensor, index: tf.Tensor) -> tuple:
        image, label = source.unpack(stored, label)
        return n, views.crops(image, epoch[n], asked[n]), label, index

    def finished(n: tf.Tensor, crops: tuple, label: tf.Tensor, index: tf.Tensor) -> tuple:
        return views.finished(crops, epoch[n], asked[n]), label, index

    def blank(n: tf.Tensor) -> tuple:
        none = tf.constant(-1, tf.int64)
        return views.blank(), none, none

    def compared(given: tf.Tensor) -> tf.Tensor:
        again = _loads_again(source, views)
        return bad_images.compare(asked, epoch, block.stored, given, again, replaces=True)

    return first_valid.first_that_decode(
        (block.stored, block.labels, asked),
        block.other,
        crops,
        blank,
        attempts=1 + SUBSTITUTES,
        failed=compared,
        finish=finished,
    )


def _loads_again(source: Source, views: ImageViews) -> Callable:
    def load(stored: tf.Tensor, epoch: int, index: int) -> tuple:
        image, _ = source.unpack(stored, -1)
        return views.crops(image, epoch, index)

    return load
