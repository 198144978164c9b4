"""Images that two sources share: at the same place in files, or copies by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from simclr_tf.data.places import file_size, shared_places
from simclr_tf.data.source import Source
from simclr_tf.names import shown

# Both sources together; images in memory need no reading.
_MOST_IMAGES, _MOST_BYTES = 20_000, 2**31


def shared_images(source: Source, other: Source, copies: float = 0.0) -> str | None:
    """Returns in words which images of `source` the other source has too; None if there are none.

    Images are the same if they lie at the same place, through links too, or are copies. Copies are
    not looked for where more than 20,000 files or 2 GiB would have to be read for that.

    Args:
      source: the images to compare.
      other: the images to compare them with, of the same kind.
      copies: the largest share of `source` that may be copies; these are warned of.
    """
    places, others = source.places(), other.places()
    if places is None or others is None:
        if source.name == other.name:
            return f"both are {source.name}"
    elif shared := shared_places(places, others):
        return shared
    pairs = _copies(*_of_equal_size(source, other))
    if not pairs:
        return None
    copy, original = pairs[0]
    words = f"{len(pairs):,} copies, such as {shown(copy)}, which is {shown(original)}"
    if len(pairs) > copies * source.num_examples:
        return words
    logging.warning("%s has images of %s: %s", source.name, other.name, words)
    return None


def _of_equal_size(source: Source, other: Source) -> tuple[Source, Source]:
    """Leaves out files that cannot be copies, and empty ones, which are no images."""
    sizes, others = source.sizes(), other.sizes()
    if sizes is None or others is None:
        return source, other
    equal = np.setdiff1d(np.intersect1d(sizes, others), [0])
    return (
        source.select(np.flatnonzero(np.isin(sizes, equal))),
        other.select(np.flatnonzero(np.isin(others, equal))),
    )


def _copies(source: Source, other: Source) -> list[tuple[str, str]]:
    """Returns the names of images of `source` that are images of `other`, and theirs."""
    if not (source.num_examples and other.num_examples and _are_small(source, other)):
        return []
    originals = dict(_digests(other))
    return [
        (source.name_of(number), other.name_of(originals[digest]))
        for digest, number in _digests(source)
        if digest in originals
    ]


def _are_small(*sources: Source) -> bool:
    read = [source for source in sources if not source.in_memory]
    if sum(source.num_examples for source in read) > _MOST_IMAGES:
        return False
    return sum(map(_bytes, read)) <= _MOST_BYTES


def _bytes(source: Source) -> int:
    """Returns how much is read of a source's files, at most."""
    sizes = source.sizes()
    return sum(map(file_size, source.files_read())) if sizes is None else int(sizes.sum())


def _digests(source: Source) -> Iterator[tuple[bytes, int]]:
    """Yields the digest of each image's pixels or encoded content, and its number.

    Records without an image are left out.
    """
    if source.in_memory:
        for number, image in enumerate(source.images):
            yield hashlib.sha256(np.ascontiguousarray(image)).digest(), number
        return

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def image_of(stored: tf.Tensor) -> tf.Tensor:
        return source.unpack(stored, tf.constant(-1, tf.int64))[0]

    with tf.device("/CPU:0"):
        for stored, _, number in source.stored().prefetch(tf.data.AUTOTUNE):
            try:
                content = image_of(stored).numpy()
            except tf.errors.InvalidArgumentError:
                continue
            yield hashlib.sha256(content).digest(), int(number)
