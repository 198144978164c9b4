"""The position of each image in its source, for methods that remember something of every image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.names import shown


def positions_in(source: Source) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns, for tf.data: numbers of images, int64 -> their positions, 0 to N - 1, int64.

    A number names an image on all hosts and in every epoch, and an image that does not decode keeps
    its own, so positions are as fixed as the source's order. The numbers of records have gaps,
    which a table of all numbers closes: 8 bytes an image on each host.

    Raises:
      RequestError: some images of the source have no number of their own.
    """
    numbers = source.indices()
    if np.array_equal(numbers, np.arange(source.num_examples)):
        return lambda number: number
    if len(numbers) != source.num_examples or np.any(np.diff(numbers) <= 0):
        raise RequestError(
            "A method that remembers each image needs a number for each, larger than that of the "
            f"image before. Received: {shown(source.name)}, whose {source.num_examples:,} images "
            f"have {len(np.unique(numbers)):,} numbers. A file may hold at most 2^20 records: pack "
            "them into more files."
        )
    table = tf.constant(numbers, tf.int64)
    return lambda number: tf.searchsorted(table, number, out_type=tf.int64)
