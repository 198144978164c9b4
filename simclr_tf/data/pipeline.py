"""Makes endless batches of augmented views from a source.

The views at a position of the run (`Order`) depend on (seed, position) alone, so a resumed run
needs no saved data state, and the number of hosts or of parallel calls changes nothing. This holds
exactly for images that are reached by number. Record files are read in order, so each host counts
positions in its own shard.

The policy runs here, or on the device with the same functions and keys. On the device a batch holds
uint8 images and the keys, and the replica function calls `ViewsPipeline.with_views` to make views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import tensorflow as tf

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup, num_views
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.block_batches import block_batches
from simclr_tf.data.image_views import ImageViews
from simclr_tf.data.options import as_written
from simclr_tf.data.order import Order
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import HostSlice

_VIEWS_FIRST = (1, 0, 2, 3, 4, 5)
_PLAIN = Augmentation((), random_crop=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsPipeline:
    """Batches of augmented views for one host.

    Attributes:
      source: the source of the images.
      groups: the views that a method requests of each image, V in all.
      seed: the run's seed.
      bad_images: records images that do not decode.
      shuffle_buffer: encoded images held to shuffle record files; other sources need none.
      augment_on: where the policy runs. `device` transfers uint8, a quarter of the bytes: for a
        source in memory each whole image, once for all views, which the device crops too; for
        other sources each view's crop, rounded.
      plain_images: how many images without augmentation, over all replicas, come with each batch;
        they are taken in the order of the run, and cropped to the central square.
      by_position: whether 'index' is an image's position in the source, 0 to N - 1, and not its
        number; they differ for record files.
    """

    source: Source
    groups: Sequence[ViewGroup]
    seed: int
    bad_images: BadImages
    shuffle_buffer: int = 8192
    augment_on: Literal["host", "device"] = "host"
    plain_images: int = 0
    by_position: bool = False

    @property
    def rounds_crops(self) -> bool:
        """Whether crops are rounded to multiples of 1/255 (by at most 1/510) before the policy."""
        return self.augment_on == "device" and not self.source.in_memory

    @property
    def image_views(self) -> ImageViews:
        """The views as the host makes them."""
        return ImageViews(
            groups=self.groups,
            seed=self.seed,
            on_host=self.augment_on == "host",
            rounded=self.rounds_crops,
            decoded=self.source.cache == "decoded",
        )

    # Nothing here needs AutoGraph, which would take most of the time to the first batch.
    @tf.autograph.experimental.do_not_convert
    def dataset(self, host: HostSlice, start_step: int = 0) -> tf.data.Dataset:
        """Returns endless batches, one per replica in turn, from global step `start_step` on.

        Returns:
          A dataset of the views by the name of their group, float32 [v*B, S, S, 3] in [0, 1], view
          1 of all B images and then view 2; 'labels': int32 [B], -1 where unknown; 'index': int32
          [B]. For the device the views are uint8 crops or, with a source in memory, 'images' holds
          the plain images, uint8 [B, H, W, 3]; and 'keys' is uint32 [V*B, 2]. With `plain_images`,
          'plain_images' is float32 [p, S, S, 3] in [0, 1], and 'plain_labels' int32 [p].
        """
        with tf.device("/CPU:0"):
            pixels = tf.constant(self.source.images) if self.source.in_memory else None
            dataset = self._batches(host, start_step, pixels)
            if self.plain_images:
                few = dataclasses.replace(host, per_replica=self._plain_of(host.num_replicas))
                plain = self._of_plain()._batches(few, start_step, pixels)
                dataset = tf.data.Dataset.zip(dataset, plain).map(_joined_with_plain)
            options = as_written()
            options.deterministic = True
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.OFF
            )
            # Large batches cost memory: prefetch only one per replica.
            chunked = _chunk_size(host.per_replica) < host.per_replica
            ahead = host.replicas if chunked else tf.data.AUTOTUNE
            # Without a declared cardinality, several hosts assume a partial last batch, and lose
            # the static shape.
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return dataset.apply(endless).prefetch(ahead).with_options(options)

    def element_spec(self, per_replica: int, num_replicas: int = 1) -> dict[str, tf.TensorSpec]:
        """Returns the specs of a batch of `dataset` for a replica of B = `per_replica` images."""
        on_host = self.augment_on == "host"
        images = {
            group.name: tf.TensorSpec(
                [group.count * per_replica, group.size, group.size, 3],
                tf.float32 if on_host else tf.uint8,
            )
            for group in self.groups
        }
        if not on_host and self.source.in_memory:
            shape = [per_replica, *self.source.images.shape[1:]]
            images = {"images": tf.TensorSpec(shape, tf.uint8)}
        keys = tf.TensorSpec([num_views(self.groups) * per_replica, 2], tf.uint32)
        return {
            **images,
            **(self._plain_spec(num_replicas) if self.plain_images else {}),
            "labels": tf.TensorSpec([per_replica], tf.int32),
            "index": tf.TensorSpec([per_replica], tf.int32),
        } | ({} if on_host else {"keys": keys})

    def with_views(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Makes, on the device, the views of a batch of `dataset` or of some of its rows.

        Part of the replica function: static shapes, and only ops that XLA compiles. The matrix
        products of crop and blur have the precision that the device gives float32.

        Returns:
          The batch, with the views of each group as float32 [v*B, S, S, 3] in [0, 1].
        """
        if self.augment_on == "host":
            return batch
        if self.source.in_memory:
            crops = self.image_views.of_pixels(batch["images"], batch["keys"])
        else:
            crops = {group.name: batch[group.name] for group in self.groups}
        levels = {n: tf.image.convert_image_dtype(crop, tf.float32) for n, crop in crops.items()}
        return {**batch, **self.image_views.augmented(levels, batch["keys"])}

    def _plain_spec(self, num_replicas: int) -> dict[str, tf.TensorSpec]:
        count, size = self._plain_of(num_replicas), self.groups[0].size
        return {
            "plain_images": tf.TensorSpec([count, size, size, 3]),
            "plain_labels": tf.TensorSpec([count], tf.int32),
        }

    def _plain_of(self, num_replicas: int) -> int:
        """Returns p, the number of plain images of each of `num_replicas`."""
        return max(1, self.plain_images // num_replicas)

    def _of_plain(self) -> ViewsPipeline:
        """Returns the pipeline of plain images alone, which needs no augmentation on a device."""
        group = ViewGroup("plain_images", [_PLAIN], self.groups[0].size)
        return dataclasses.replace(self, groups=[group], augment_on="host", plain_images=0)

    def _batches(
        self, host: HostSlice, start_step: int, pixels: tf.Tensor | None
    ) -> tf.data.Dataset:
        """Returns endless batches of views; `pixels` are the images of a source in memory."""
        order = Order(
            seed=self.seed, host=host, start_step=start_step, shuffle_buffer=self.shuffle_buffer
        )
        if pixels is not None:
            return self._of_pixels(order, pixels)
        return block_batches(
            self.source, self.image_views, order, self.bad_images, self.by_position
        )

    def _of_pixels(self, order: Order, images: tf.Tensor) -> tf.data.Dataset:
        """Returns batches of a source in memory."""
        source, views = self.source, self.image_views
        labels = source.label_tensor()

        def chunk(positions: tf.Tensor) -> dict[str, tf.Tensor]:
            epoch, index = order.at(positions, source.num_examples)
            keys = views.keys(epoch, index)
            batch = {"images": tf.gather(images, index)}
            if views.on_host:
                batch = views.augmented(views.of_pixels(batch["images"], keys), keys)
            return {
                **batch,
                "labels": tf.cast(tf.gather(labels, index), tf.int32),
                "index": tf.cast(index, tf.int32),
            } | ({} if views.on_host else {"keys": keys})

        return self._in_chunks(order.positions(), chunk, order.host.per_replica)

    def _in_chunks(
        self, examples: tf.data.Dataset, views: Callable, per_replica: int
    ) -> tf.data.Dataset:
        """Returns batches of `views`, which augments one chunk of examples at a time.

        Augmentation has several temporaries of its input's size, so a chunk needs less memory than
        a batch.
        """
        chunk = _chunk_size(per_replica) if self.augment_on == "host" else per_replica
        dataset = examples.batch(chunk, drop_remainder=True).map(views, tf.data.AUTOTUNE)
        if chunk == per_replica:
            return dataset

        def join(chunks: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            views = {group.name: _joined(chunks.pop(group.name), chunk) for group in self.groups}
            return views | {n: tf.reshape(x, [-1]) for n, x in chunks.items()}

        return dataset.batch(per_replica // chunk, drop_remainder=True).map(join, 1)


def _joined_with_plain(
    batch: dict[str, tf.Tensor], plain: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    return batch | {"plain_images": plain["plain_images"], "plain_labels": plain["labels"]}


def _chunk_size(per_replica: int) -> int:
    """Returns a batch's largest divisor from 64 to 256, or the batch itself if there is none."""
    divisors = [n for n in range(64, 257) if per_replica % n == 0]
    return divisors[-1] if divisors else per_replica


def _joined(chunks: tf.Tensor, chunk: int) -> tf.Tensor:
    """Reorders [chunks, v*b, S, S, 3], each chunk view after view, to [v*B, S, S, 3]."""
    image = chunks.shape[2:]
    by_view = tf.transpose(tf.reshape(chunks, [chunks.shape[0], -1, chunk, *image]), _VIEWS_FIRST)
    return tf.reshape(by_view, [-1, *image])
