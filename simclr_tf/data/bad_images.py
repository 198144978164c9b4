"""The count of images that do not decode, and the point at which they are too many."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl import logging

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError


class BadImages:
    """Images of a source that were skipped because they do not decode.

    Args:
      source: the images.
      limit: the share of them above which a run must not go on.
    """

    def __init__(self, source: Source, limit: float = 0.01):
        self._source = source
        self._limit = limit
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, indices: np.ndarray) -> None:
        """Notes images by their numbers."""
        for index in indices:
            name = self._source.name_of(int(index))
            if name not in self._names:
                self._names.add(name)
                logging.warning("skipped an image that does not decode: %s", name)

    def compare(self, asked: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
        """Inside tf.data: notes those of `asked` int64 [B] that were replaced; returns `given`."""

        def note(asked: np.ndarray, given: np.ndarray) -> np.ndarray:
            self.add(asked[asked != given])
            return given

        noted = tf.cond(
            tf.reduce_any(asked != given),
            lambda: tf.numpy_function(note, [asked, given], tf.int64),
            lambda: given,
        )
        return tf.ensure_shape(noted, given.shape)

    def check(self) -> None:
        """Raises RequestError if more than the allowed share of the images is bad."""
        if len(self._names) > self._limit * self._source.num_examples:
            shown = "\n  ".join(sorted(self._names)[:10])
            raise RequestError(
                f"At most {self._limit:.0%} of the images may fail to decode. Received: "
                f"{len(self._names)} of {self._source.num_examples} so far. Repair or remove "
                f"them:\n  {shown}"
            )
