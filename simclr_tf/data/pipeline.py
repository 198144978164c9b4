"""From a source to batches: augmented views of each image, or the plain images once each.

Position p = 0, 1, 2, ... counts the images of a whole run over all hosts: epoch p // N holds each
of the N images once, in an order of its own, and global batch s takes positions s*G to (s+1)*G - 1.
What becomes of position p depends on (seed, p) alone, so a resumed run needs no saved data state,
and the number of hosts or of parallel calls changes nothing. For files reached by number this
holds exactly; record files are read in order, so there each host counts positions of its own shard.

The policy runs here, or on the device by the same functions and keys: then a batch has uint8 images
and the keys, and `ViewsPipeline.views`, which the replica function calls, makes the views of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.crop import center_crop_box
from simclr_tf.augment.host import box_sampler, view_augmenter
from simclr_tf.augment.policy import Augmentation
from simclr_tf.data import cache, decode, first_valid, header, record_stream
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.read_errors import reading_explained
from simclr_tf.data.source import ArraySource, FileSource, RecordSource, Source
from simclr_tf.distribute.strategy import HostSlice

# How many other images are tried in place of one that does not decode.
_SUBSTITUTES = 7


class _Block(NamedTuple):
    """K examples that are loaded together.

    Attributes:
      epoch: in which each is shown, int64 [K].
      stored: what was read: encoded images, or records that hold them, string [K].
      labels: int64 [K], -1 where unknown, or not before a record is parsed.
      asked: the images, by their numbers, int64 [K].
      other: (n, attempt from 1 on) -> stored, label and number of another image for place n.
    """

    epoch: tf.Tensor
    stored: tf.Tensor
    labels: tf.Tensor
    asked: tf.Tensor
    other: Callable


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
        return self.augment_on == "device" and not isinstance(self.source, ArraySource)

    # AutoGraph, for which nothing here has a use, would take most of the time to the first batch.
    @tf.autograph.experimental.do_not_convert
    def dataset(self, host: HostSlice, start_step: int = 0) -> tf.data.Dataset:
        """Endless batches, one per replica in turn, from global step `start_step` on.

        Returns:
          A dataset of {'images': float32 [V*B, S, S, 3] in [0, 1], view 1 of all B images and then
          view 2 of them; 'labels': int32 [B], -1 where unknown; 'index': int32 [B]}. For the device
          'images' is uint8, [B, H, W, 3] of a source in memory, and 'keys' is uint32 [V*B, 2].
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
            # Or several hosts would expect a last batch of any size, and know no shape before.
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return dataset.apply(endless).prefetch(ahead).with_options(options)

    def element_spec(self, per_replica: int) -> dict[str, tf.TensorSpec]:
        """What `dataset` gives a replica of B = `per_replica` images."""
        rows = self.num_views * per_replica
        images = tf.TensorSpec([rows, self.image_size, self.image_size, 3], tf.float32)
        keys = {}
        if self.augment_on == "device":
            plain = isinstance(self.source, ArraySource)
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
        if isinstance(self.source, ArraySource):
            images = self._crop_plain(images, batch["keys"])
        return self.augmentation(tf.image.convert_image_dtype(images, tf.float32), batch["keys"])

    def with_views(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch of `dataset`, or some of its rows, with its views as "images"."""
        return {**batch, "images": self.views(batch)}

    def _from_array(self, source: ArraySource, host: HostSlice, start_step: int):
        images = tf.constant(source.images)
        labels = _labels(source)

        def views(positions: tf.Tensor):
            epoch, index = self._epoch_and_index(positions)
            keys = self._keys(epoch, index)
            batch = tf.gather(images, index)
            if self.augment_on == "host":
                batch = self._crop_plain(batch, keys)
            return self._element(batch, keys, tf.gather(labels, index), index)

        return self._in_chunks(_positions(host, start_step), views, host.per_replica)

    def _from_files(self, source: FileSource, host: HostSlice, start_step: int):
        paths = tf.constant([cache.location(path, source.cache) for path in source.paths])
        labels = _labels(source)

        def opened(positions: tf.Tensor) -> _Block:
            epoch, asked = self._epoch_and_index(positions)

            def other(n: tf.Tensor, attempt: tf.Tensor):
                i = self._shuffle((asked[n] + attempt) % source.num_examples, epoch[n])
                return tf.io.read_file(paths[i]), labels[i], i

            contents = [tf.io.read_file(paths[i]) for i in tf.unstack(asked)]
            return _Block(epoch, tf.stack(contents), tf.gather(labels, asked), asked, other)

        size = first_valid.block_size(host.per_replica)
        blocks = _positions(host, start_step).batch(size, drop_remainder=True)
        return self._batches(blocks, opened, host)

    def _from_records(self, source: RecordSource, host: HostSlice, start_step: int):
        size = first_valid.block_size(host.per_replica)
        start = start_step * host.per_host
        blocks = record_stream.epochs(
            source, self.seed, self.shuffle_buffer, host, start, size, after=_SUBSTITUTES
        )
        unknown = tf.constant(-1, tf.int64)  # the label, until the record is parsed

        def opened(block: dict[str, tf.Tensor]) -> _Block:
            def other(n: tf.Tensor, attempt: tf.Tensor):
                row = n + attempt
                return block["record"][row], unknown, block["index"][row]

            epoch, record, asked = (block[k][:size] for k in ("epoch", "record", "index"))
            return _Block(epoch, record, tf.fill([size], unknown), asked, other)

        return self._batches(blocks, opened, host)

    def _batches(
        self, blocks: tf.data.Dataset, opened: Callable[..., _Block], host: HostSlice
    ) -> tf.data.Dataset:
        """Loads and augments blocks of examples in parallel, each by itself, and joins them."""
        augment = view_augmenter(self.augmentation)
        seed = tf.constant(self.seed, tf.int64)
        on_host = self.augment_on == "host"
        count = host.per_replica // first_valid.block_size(host.per_replica)

        def loaded(*elements):
            block = opened(*elements)
            epoch, asked = block.epoch, block.asked

            def load(n: tf.Tensor, stored: tf.Tensor, label: tf.Tensor, index: tf.Tensor):
                image, label = _unpacked(self.source, stored, label)
                return n, self.crops(image, epoch[n], asked[n]), label, index

            def finish(n: tf.Tensor, views: tuple, label: tf.Tensor, index: tf.Tensor):
                if on_host:
                    views = tuple(
                        augment(view, seed, epoch[n], asked[n], number)
                        for number, view in enumerate(views)
                    )
                return views, label, index

            def again(stored: tf.Tensor, epoch: int, index: int):
                image, _ = _unpacked(self.source, stored, -1)
                return self.crops(image, epoch, index)

            def compare(given: tf.Tensor) -> tf.Tensor:
                return self.bad_images.compare(
                    asked, epoch, block.stored, given, again, replaces=True
                )

            found = first_valid.first_that_decode(
                (block.stored, block.labels, asked),
                block.other,
                load,
                self._blank,
                attempts=1 + _SUBSTITUTES,
                failed=compare,
                finish=finish,
            )
            return *found, asked, epoch

        def joined(images, *numbers):
            """One batch of a window of blocks, by one copy."""
            in_order = functools.reduce(tf.data.Dataset.concatenate, images)
            return tf.data.Dataset.zip(
                in_order.batch(self.num_views * count, drop_remainder=True),
                *(n.batch(count, drop_remainder=True) for n in numbers),
            )

        def element(images, *numbers):
            label, index, asked, epoch = (tf.reshape(n, [-1]) for n in numbers)
            return {
                "images": tf.reshape(images, [-1, *images.shape[2:]]),
                "labels": tf.cast(label, tf.int32),
                "index": tf.cast(index, tf.int32),
            } | ({} if on_host else {"keys": self._keys(epoch, asked)})

        windows = blocks.map(loaded, tf.data.AUTOTUNE).window(count, drop_remainder=True)
        return windows.flat_map(joined).map(element)

    def _blank(self, n: tf.Tensor):
        """Holds the place of an image that does not decode until another is found: number -1."""
        none = tf.constant(-1, tf.int64)
        shape = [self.image_size, self.image_size, 3]
        black = tf.zeros(shape, tf.uint8 if self.rounds_crops else tf.float32)
        return (black,) * self.num_views, none, none

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

    def crops(self, stored: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> tuple:
        """The crops of an image's views, V of [S, S, 3]: float32 levels, or uint8 if rounded."""
        decoded = self.source.cache == "decoded"
        image = cache.pixels(stored) if decoded else stored
        height, width = tf.unstack(tf.shape(image)[:2] if decoded else header.image_shape(image))
        sample = box_sampler(self.augmentation, self.num_views)
        boxes = sample(tf.constant(self.seed, tf.int64), epoch, index, height, width)
        crop_out = decode.crops_of if decoded else decode.decode_crops
        crops = crop_out(image, boxes, self.image_size)
        return tuple(map(_rounded, crops) if self.rounds_crops else crops)

    def _crop_plain(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """A crop for each key of uint8 images [B, H, W, 3] in memory: float32 [V*B, S, S, 3]."""
        return self.augmentation.crop(
            tf.concat([images] * self.num_views, axis=0), keys, self.image_size
        )

    def _element(self, images, keys, labels, index) -> dict[str, tf.Tensor]:
        on_host = self.augment_on == "host"
        return {
            "images": self.augmentation(images, keys) if on_host else images,
            "labels": tf.cast(labels, tf.int32),
            "index": tf.cast(index, tf.int32),
        } | ({} if on_host else {"keys": keys})

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
    resized, as the reference does it. One that does not decode is left out, and noted; what cannot
    be read is an error.

    Yields:
      images float32 [b, S, S, 3] in [0, 1], labels int64 [b], -1 where unknown, and the numbers
      by which the source knows the images, int64 [b].

    Raises:
      RequestError: a file cannot be read, or an image that decodes could not be loaded.
    """
    with tf.device("/CPU:0"):
        if isinstance(source, ArraySource):
            arrays = (tf.constant(source.images), _labels(source), source.indices())
            batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
            batches = batches.map(
                lambda images, labels, index: (_center(images, image_size), labels, index),
                tf.data.AUTOTUNE,
            )
        else:
            blocks = _stored(source).batch(first_valid.LARGEST_BLOCK)
            decoded = blocks.map(_decoder(source, image_size, bad_images), tf.data.AUTOTUNE)
            good = decoded.unbatch().filter(lambda image, label, index: index >= 0)
            batches = good.batch(batch_size)
    with bad_images.explained(), reading_explained(source):
        yield from batches.prefetch(2).as_numpy_iterator()


def _stored(source: FileSource | RecordSource) -> tf.data.Dataset:
    """Everything once, in the source's order: what is read, its label, and its number."""
    if isinstance(source, RecordSource):
        unknown = tf.constant(-1, tf.int64)
        return record_stream.in_order(source).map(lambda record, index: (record, unknown, index))
    files = (tf.constant(source.paths), _labels(source), source.indices())
    return tf.data.Dataset.from_tensor_slices(files).map(
        lambda path, label, index: (tf.io.read_file(path), label, index), tf.data.AUTOTUNE
    )


def _decoder(source: FileSource | RecordSource, size: int, bad_images: BadImages) -> Callable:
    """A block of what `_stored` gives -> centre crops, labels, and numbers, -1 of bad images."""

    def center(stored: tf.Tensor, label: tf.Tensor, index: tf.Tensor):
        image, label = _unpacked(source, stored, label)
        return decode.decode_center(image, size), label, index

    def blank(n: tf.Tensor):
        return tf.zeros([size, size, 3]), n, tf.constant(-1, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def decoded(stored: tf.Tensor, labels: tf.Tensor, index: tf.Tensor):
        def compare(given: tf.Tensor) -> tf.Tensor:
            return bad_images.compare(
                index,
                tf.zeros_like(index),
                stored,
                given,
                lambda stored, _, index: center(stored, -1, index),
                replaces=False,
            )

        return first_valid.first_that_decode(
            (stored, labels, index),
            None,
            lambda n, *example: center(*example),
            blank,
            attempts=1,
            failed=compare,
        )

    return decoded


def _unpacked(source: FileSource | RecordSource, stored: tf.Tensor, label: tf.Tensor):
    """The encoded image and its label in what was read."""
    return source.parse(stored) if isinstance(source, RecordSource) else (stored, label)


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


def _rounded(levels: tf.Tensor) -> tf.Tensor:
    """Levels as `decode.decode_crops` gives them, to the nearest of the 256 of uint8."""
    return tf.cast(tf.clip_by_value(levels, 0.0, 255.0) + 0.5, tf.uint8)


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
