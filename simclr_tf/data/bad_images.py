"""The count of images that do not decode, and the point at which they are too many."""

from __future__ import annotations

import tensorflow as tf
from absl import logging

from simclr_tf.errors import RequestError


class BadImages:
    """Images that were skipped because they do not decode.

    Args:
      num_examples: how many images the source has.
      limit: the share of them above which a run must not go on.
    """

    def __init__(self, num_examples: int, limit: float = 0.01):
        self._num_examples = num_examples
        self._limit = limit
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: tf.Tensor) -> tf.Tensor:
        """Notes the image `name` (a string scalar) from inside tf.data; returns `name`."""
        result = tf.numpy_function(self._add, [name], tf.string, stateful=False)
        return tf.ensure_shape(result, [])

    def _add(self, name: bytes) -> bytes:
        text = name.decode(errors="replace")
        if text not in self._names:
            self._names.add(text)
            logging.warning("skipped an image that does not decode: %s", text)
        return name

    def check(self) -> None:
        """Raises RequestError if more than the allowed share of the images is bad."""
        if len(self._names) > self._limit * self._num_examples:
            shown = "\n  ".join(sorted(self._names)[:10])
            raise RequestError(
                f"At most {self._limit:.0%} of the images may fail to decode. Received: "
                f"{len(self._names)} of {self._num_examples} so far. Repair or remove them:\n"
                f"  {shown}"
            )
