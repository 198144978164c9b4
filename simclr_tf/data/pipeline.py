"""From a source to endless batches of augmented views.

What becomes of a position of the run (`Order`) depends on (seed, position) alone, so a resumed run
needs no saved data state, and the number of hosts or of parallel calls changes nothing. For images
that are reached by number this holds exactly; record files are read in order, so there each host
counts positions of its own shard.

The policy runs here, or on the device by the same functions and keys: then a batch has uint8 images
and the keys, and `ViewsPipeline.views`, which the replica function calls, makes the views of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from simclr_tf.augment.policy import Augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.block_batches import block_batches
from simclr_tf.data.image_views import ImageViews
from simclr_tf.data.order import Order
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import HostSlice


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsPipeline:
    """Batches of augmented views for one host: two an image for SimCLR, one for a classifier.

    Attributes:
      source: where the images come from.
      augmentation: crop and policy.
      image_size: side of a view in pixels.
      seed: the run's seed.
      bad_images: notes what does not decode.
      shuffle_buffer: encoded images held to shuffle record files; other sources need none.
      num_views: V, views of each image.
      augment_on: where the policy runs. `device` ships images as uint8, a quarter of the bytes: of
        a source in memory as they are, to be cropped on the device too, once for all views; of
        other sources each view's crop, rounded.
    """

    source: Source
    augmentation: Augmentation
    image_size: int
    seed: int
    bad_images: BadImages
    shuffle_buffer: int = 8192
    num_views: int = 2
    augment_on: Literal["host", "device"] = "host"

    @property
    def rounds_crops(self) -> bool:
        """Whether crops are rounded to 1/255 before the policy: by at most 1/510."""
        return self.augment_on == "device" and not self.source.in_memory

    @property
    def image_views(self) -> ImageViews:
        """How the host makes the views."""
        return ImageViews(
            augmentation=self.augmentation,
            image_size=self.image_size,
            seed=self.seed,
            num_views=self.num_views,
            on_host=self.augment_on == "host",
            rounded=self.rounds_crops,
            decoded=self.source.cache == "decoded",
        )

    # AutoGraph, which nothing here needs, would take most of the time to the first batch.
    @tf.autograph.experimental.do_not_convert
    def dataset(self, host: HostSlice, start_step: int = 0) -> tf.data.Dataset:
        """Endless batches, one per replica in turn, from global step `start_step` on.

        Returns:
          A dataset of {'images': float32 [V*B, S, S, 3] in [0, 1], view 1 of all B images and then
          view 2 of them; 'labels': int32 [B], -1 where unknown; 'index': int32 [B]}. For the device
          'images' is uint8, [B, H, W, 3] of a source in memory, and 'keys' is uint32 [V*B, 2].
        """
        with tf.device("/CPU:0"):
            order = Order(
                seed=self.seed,
                host=host,
                start_step=start_step,
                shuffle_buffer=self.shuffle_buffer,
            )
            if self.source.in_memory:
                dataset = self._of_pixels(order)
            else:
                dataset = block_batches(self.source, self.image_views, order, self.bad_images)
            options = tf.data.Options()
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

    def element_spec(self, per_replica: int) -> dict[str, tf.TensorSpec]:
        """What `dataset` gives a replica of B = `per_replica` images."""
        rows = self.num_views * per_replica
        images = tf.TensorSpec([rows, self.image_size, self.image_size, 3], tf.float32)
        keys = {}
        if self.augment_on == "device":
            plain = self.source.in_memory
            shape = [per_replica, *self.source.images.shape[1:]] if plain else images.shape
            images = tf.TensorSpec(shape, tf.uint8)
            keys = {"keys": tf.TensorSpec([rows, 2], tf.uint32)}
        return {
            "images": images,
            "labels": tf.TensorSpec([per_replica], tf.int32),
            "index": tf.TensorSpec([per_replica], tf.int32),
        } | keys

    def views(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The views of a batch of `dataset`: what of the augmentation is left to the device.

        Part of the replica function: static shapes, and no op that XLA does not compile. Matrix
        products, of which crop and blur are made, have the precision that the device gives float32.

        Returns:
          float32 [V*B, S, S, 3] in [0, 1].
        """
        images = batch["images"]
        if self.augment_on == "host":
            return images
        if self.source.in_memory:
            images = self.image_views.of_pixels(images, batch["keys"])
        return self.augmentation(tf.image.convert_image_dtype(images, tf.float32), batch["keys"])

    def with_views(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch of `dataset`, or some of its rows, with its views as "images"."""
        return {**batch, "images": self.views(batch)}

    def _of_pixels(self, order: Order) -> tf.data.Dataset:
        """Batches of a source in memory."""
        source, views = self.source, self.image_views
        images, labels = tf.constant(source.images), source.label_tensor()

        def chunk(positions: tf.Tensor) -> dict[str, tf.Tensor]:
            epoch, index = order.at(positions, source.num_examples)
            keys = views.keys(epoch, index)
            batch = tf.gather(images, index)
            if views.on_host:
                batch = self.augmentation(views.of_pixels(batch, keys), keys)
            return {
                "images": batch,
                "labels": tf.cast(tf.gather(labels, index), tf.int32),
                "index": tf.cast(index, tf.int32),
            } | ({} if views.on_host else {"keys": keys})

        return self._in_chunks(order.positions(), chunk, order.host.per_replica)

    def _in_chunks(
        self, examples: tf.data.Dataset, views: Callable, per_replica: int
    ) -> tf.data.Dataset:
        """Batches of `views`, which augments a chunk of examples at a time.

        Augmentation has several temporaries of its input's size: of a chunk, and not of a batch.
        """
        chunk = _chunk_size(per_replica) if self.augment_on == "host" else per_replica
        dataset = examples.batch(chunk, drop_remainder=True).map(views, tf.data.AUTOTUNE)
        if chunk == per_replica:
            return dataset

        def join(chunks: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images = chunks.pop("images")  # [chunks, V*b, S, S, 3], each view 1 and then view 2
            image = images.shape[2:]
            images = tf.reshape(images, [-1, self.num_views, chunk, *image])
            images = tf.reshape(tf.transpose(images, [1, 0, 2, 3, 4, 5]), [-1, *image])
            return {"images": images} | {n: tf.reshape(x, [-1]) for n, x in chunks.items()}

        return dataset.batch(per_replica // chunk, drop_remainder=True).map(join, 1)


def _chunk_size(per_replica: int) -> int:
    """The largest divisor of a batch up to 256; the batch itself if its divisors are small."""
    divisors = [n for n in range(64, 257) if per_replica % n == 0]
    return divisors[-1] if divisors else per_replica
