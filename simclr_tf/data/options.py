"""Options of the pipelines that decode images."""

from __future__ import annotations

import tensorflow as tf


def as_written() -> tf.data.Options:
    """Returns options under which tf.data runs a pipeline without rewriting its graph first.

    The rewrites fuse and parallelize simple transformations; the slow ones here are parallel as
    they are written. But each start of a pipeline would wait for copies of all functions of its
    graph, of which decoding has many.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options
