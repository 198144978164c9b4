"""The plain images of a source, each once, as evaluation uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from simclr_tf.augment.crop import center_crop_box
from simclr_tf.data import decode, first_valid
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.options import as_written
from simclr_tf.data.read_errors import reading_explained
from simclr_tf.data.source import Source


def plain_images(
    source: Source, image_size: int, batch_size: int, bad_images: BadImages
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields each image once, centre-cropped, in the source's order; the last batch may be smaller.

    An image of the requested size, up to 32 pixels, is used whole. Any other is centre-cropped and
    resized, as in the reference. An image that does not decode is skipped and recorded; one that
    cannot be read is an error.

    Yields:
      images float32 [b, S, S, 3] in [0, 1], labels int64 [b], -1 where unknown, and the source's
      numbers of the images, int64 [b].

    Raises:
      RequestError: a file cannot be read, or an image that decodes could not be loaded.
    """
    with tf.device("/CPU:0"):
        if source.in_memory:
            arrays = (tf.constant(source.images), source.label_tensor(), source.indices())
            batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
            batches = batches.map(
                lambda images, labels, index: (_center(images, image_size), labels, index),
                tf.data.AUTOTUNE,
            )
        else:
            blocks = source.stored().batch(first_valid.LARGEST_BLOCK)
            decoded = blocks.map(_decoder(source, image_size, bad_images), tf.data.AUTOTUNE)
            good = decoded.unbatch().filter(lambda image, label, index: index >= 0)
            batches = good.batch(batch_size)
    with bad_images.explained(), reading_explained(source):
        yield from batches.prefetch(2).with_options(as_written()).as_numpy_iterator()


def _decoder(source: Source, size: int, bad_images: BadImages) -> Callable:
    """Returns: block of `Source.stored` -> centre crops, labels, numbers (-1 for bad images)."""

    def center(stored: tf.Tensor, label: tf.Tensor, index: tf.Tensor):
        image, label = source.unpack(stored, label)
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


def _center(images: tf.Tensor, size: int) -> tf.Tensor:
    height, width = images.shape[1:3]
    if height == width == size <= 32:
        return tf.image.convert_image_dtype(images, tf.float32)
    y, x, h, w = center_crop_box(height, width)
    crops = tf.image.convert_image_dtype(images[:, y : y + h, x : x + w], tf.float32)
    return tf.clip_by_value(tf.image.resize(crops, [size, size], method="bicubic"), 0.0, 1.0)
