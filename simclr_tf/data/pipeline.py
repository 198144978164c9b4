"""From a source to batches: augmented views of each image, or the plain images once each.

Position p = 0, 1, 2, ... counts the images of a whole run over all hosts: epoch p // N holds each
of the N images once, in an order of its own, and global batch s takes positions s*G to (s+1)*G - 1.
What becomes of position p depends on (seed, p) alone, so a resumed run needs no saved data state,
and the number of hosts or of parallel calls changes nothing. For files reached by number this
holds exactly; record files are read in order, so there each host counts positions of its own shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.crop import center_crop_box
from simclr_tf.augment.policy import Augmentation
from simclr_tf.data import decode, records
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.source import ArraySource, FileSource, RecordSource, Source
from simclr_tf.distribute.strategy import HostSlice

# How many other images are tried in place of one that does not decode.
_SUBSTITUTES = 7


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
    """

    source: Source
    augmentation: Augmentation
    image_size: int
    seed: int
    bad_images: BadImages
    shuffle_buffer: int = 8192
    num_views: int = 2

    # AutoGraph, for which nothing here has a use, would take most of the time to the first batch.
    @tf.autograph.experimental.do_not_convert
    def dataset(self, host: HostSlice, start_step: int = 0) -> tf.data.Dataset:
        """Endless batches, one per replica in turn, from global step `start_step` on.

        Returns:
          A dataset of {'images': float32 [V*B, S, S, 3] in [0, 1], view 1 of all B images and then
          view 2 of them; 'labels': int32 [B], -1 where unknown; 'index': int32 [B]}.
        """
        with tf.device("/CPU:0"):
            if isinstance(self.source, ArraySource):
                dataset = self._from_array(self.source, host, start_step)
            elif isinstance(self.source, FileSource):
                dataset = self._from_files(self.source, host, start_step)
            else:
                dataset = self._from_records(self.source, host, start_step)
            options = tf.data.Options()
            options.deterministic = True
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.OFF
            )
            # Of large batches, which are large in memory too, one is enough to have ready.
            chunked = _chunk_size(host.per_replica) < host.per_replica
            ahead = host.replicas if chunked else tf.data.AUTOTUNE
            return dataset.prefetch(ahead).with_options(options)

    def element_spec(self, per_replica: int) -> dict[str, tf.TensorSpec]:
        """What `dataset` gives a replica of B = `per_replica` images."""
        side = self.image_size
        return {
            "images": tf.TensorSpec([self.num_views * per_replica, side, side, 3], tf.float32),
            "labels": tf.TensorSpec([per_replica], tf.int32),
            "index": tf.TensorSpec([per_replica], tf.int32),
        }

    def _from_array(self, source: ArraySource, host: HostSlice, start_step: int):
        images = tf.constant(source.images)
        labels = _labels(source)

        def views(positions: tf.Tensor):
            epoch, index = self._epoch_and_index(positions)
            keys = self._keys(epoch, index)
            batch = tf.concat([tf.gather(images, index)] * self.num_views, axis=0)
            crops = self.augmentation.crop(batch, keys, self.image_size)
            return self._element(crops, keys, tf.gather(labels, index), index)

        return self._in_chunks(_positions(host, start_step), views, host.per_replica)

    def _from_files(self, source: FileSource, host: HostSlice, start_step: int):
        paths = tf.constant(source.paths)
        labels = _labels(source)

        def example(position: tf.Tensor) -> tf.data.Dataset:
            epoch, index = self._epoch_and_index(position)
            others = (index + tf.range(1, _SUBSTITUTES + 1, dtype=tf.int64)) % source.num_examples
            candidates = tf.concat([index[tf.newaxis], self._shuffle(others, epoch)], axis=0)

            def load(i: tf.Tensor):
                crops = self._crops(tf.io.read_file(paths[i]), epoch, index)
                return crops, epoch, labels[i], i, index

            return self._first_that_loads(candidates, load, epoch, index)

        return self._batched_views(_positions(host, start_step), example, host)

    def _from_records(self, source: RecordSource, host: HostSlice, start_step: int):
        stream = records.epochs(
            source, self.seed, self.shuffle_buffer, host, start_step * host.per_host
        )

        def example(candidates: dict[str, tf.Tensor]) -> tf.data.Dataset:
            epoch, index = candidates["epoch"][0], candidates["index"][0]

            def load(candidate: dict[str, tf.Tensor]):
                encoded, label = source.parse(candidate["record"])
                return self._crops(encoded, epoch, index), epoch, label, candidate["index"], index

            return self._first_that_loads(candidates, load, epoch, index)

        return self._batched_views(stream, example, host)

    def _batched_views(self, examples: tf.data.Dataset, load, host: HostSlice) -> tf.data.Dataset:
        """Loads the crops of single images in parallel, then augments them batch by batch."""

        def views(crops, epoch, label, index, asked):
            index = self.bad_images.compare(asked, index)
            images = tf.concat(tf.unstack(crops, num=self.num_views, axis=1), axis=0)
            return self._element(images, self._keys(epoch, asked), label, index)

        loaded = examples.interleave(
            load, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return self._in_chunks(loaded, views, host.per_replica)

    def _in_chunks(
        self, examples: tf.data.Dataset, views: Callable, per_replica: int
    ) -> tf.data.Dataset:
        """Batches of `views`, which augments a chunk of examples at a time.

        Augmentation has several temporaries of its input's size: of a chunk, and not of a batch.
        """
        chunk = _chunk_size(per_replica)
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

    def _first_that_loads(
        self, candidates, load: Callable, epoch: tf.Tensor, index: tf.Tensor
    ) -> tf.data.Dataset:
        """One element: `load` of the first candidate that decodes, with the keys of the first.

        If none does, it is a black image with number -1: the position is filled, so that later
        ones stay in place, and the failure is noted like any other.
        """
        black = tf.zeros([self.num_views, self.image_size, self.image_size, 3])
        nothing = (black, epoch, tf.constant(-1, tf.int64), tf.constant(-1, tf.int64), index)
        loaded = tf.data.Dataset.from_tensor_slices(candidates).map(load).ignore_errors()
        return loaded.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)

    def _crops(self, encoded: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        keys = self._keys(epoch[tf.newaxis], index[tf.newaxis])
        height, width = tf.unstack(decode.image_shape(encoded))
        boxes = self.augmentation.sample_boxes(
            keys, tf.repeat(height, self.num_views), tf.repeat(width, self.num_views)
        )
        return decode.decode_crops(
            encoded, tf.ensure_shape(boxes, [self.num_views, 4]), self.image_size
        )

    def _element(self, images, keys, labels, index) -> dict[str, tf.Tensor]:
        return {
            "images": self.augmentation(images, keys),
            "labels": tf.cast(labels, tf.int32),
            "index": tf.cast(index, tf.int32),
        }

    def _epoch_and_index(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The epoch that a position belongs to, and the image that has this place in its order."""
        epoch, place = position // self.source.num_examples, position % self.source.num_examples
        return epoch, self._shuffle(place, epoch)

    def _keys(self, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Random keys of [view 1 of all images; view 2 of all images], uint32 [V*B, 2]."""
        views = range(self.num_views)
        keys = [random_keys.example_keys(self.seed, epoch, index, view) for view in views]
        return tf.concat(keys, axis=0)

    def _shuffle(self, place: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """What an epoch's random permutation of the N images has at `place`."""
        seed = tf.stack([tf.fill(tf.shape(epoch), tf.cast(self.seed, tf.int64)), epoch], axis=-1)
        seed = tf.concat([seed, tf.zeros_like(seed[..., :1])], axis=-1)
        # tf.random.experimental.index_shuffle pads a batch of seeds along the wrong axis (TF 2.21).
        return tf.raw_ops.RandomIndexShuffle(
            index=place, seed=seed, max_index=tf.constant(self.source.num_examples - 1, tf.int64)
        )


def plain_images(
    source: Source, image_size: int, batch_size: int, bad_images: BadImages
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every image once, in the source's order, centre-cropped; the last batch may be smaller.

    An image of the asked size, up to 32 pixels, is taken whole. Any other is cut to its centre and
    resized, as the reference does it. One that does not decode is left out, and noted.

    Yields:
      images float32 [b, S, S, 3] in [0, 1], labels int64 [b], -1 where unknown, and the numbers
      by which the source knows the images, int64 [b].
    """

    def load(encoded: tf.Tensor, label: tf.Tensor, index: tf.Tensor):
        return decode.decode_center(encoded, image_size), label, index

    with tf.device("/CPU:0"):
        if isinstance(source, ArraySource):
            arrays = (tf.constant(source.images), _labels(source), source.indices())
            batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
            batches = batches.map(
                lambda images, labels, index: (_center(images, image_size), labels, index),
                tf.data.AUTOTUNE,
            )
        else:
            if isinstance(source, FileSource):
                files = (tf.constant(source.paths), _labels(source), source.indices())
                encoded = tf.data.Dataset.from_tensor_slices(files).map(
                    lambda path, label, index: (tf.io.read_file(path), label, index),
                    tf.data.AUTOTUNE,
                )
            else:
                encoded = records.in_order(source)
            batches = encoded.map(load, tf.data.AUTOTUNE).ignore_errors().batch(batch_size)
    seen = []
    for images, labels, index in batches.prefetch(2).as_numpy_iterator():
        seen.append(index)
        yield images, labels, index
    bad_images.add(np.setdiff1d(source.indices(), np.concatenate([[], *seen])))


def _positions(host: HostSlice, start_step: int) -> tf.data.Dataset:
    """The positions of a host's images in global batches `start_step`, `start_step + 1`, ..."""
    per_host = tf.constant(host.per_host, tf.int64)
    first = host.index * host.per_host

    def position(n: tf.Tensor) -> tf.Tensor:
        return n // per_host * host.global_batch + first + n % per_host

    return tf.data.Dataset.range(start_step * host.per_host, tf.int64.max).map(position)


def _chunk_size(per_replica: int) -> int:
    """The largest divisor of a batch up to 256; the batch itself if its divisors are small."""
    divisors = [n for n in range(64, 257) if per_replica % n == 0]
    return divisors[-1] if divisors else per_replica


def _labels(source: ArraySource | FileSource) -> tf.Tensor:
    if source.labels is None:
        return tf.fill([source.num_examples], tf.constant(-1, tf.int64))
    return tf.constant(source.labels, tf.int64)


def _center(images: tf.Tensor, size: int) -> tf.Tensor:
    height, width = images.shape[1:3]
    if height == width == size <= 32:
        return tf.image.convert_image_dtype(images, tf.float32)
    y, x, h, w = center_crop_box(height, width)
    crops = tf.image.convert_image_dtype(images[:, y : y + h, x : x + w], tf.float32)
    return tf.clip_by_value(tf.image.resize(crops, [size, size], method="bicubic"), 0.0, 1.0)
