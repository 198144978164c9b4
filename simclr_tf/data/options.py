"""Options of the pipelines that decode images."""

from __future__ import annotations

import tensorflow as tf


def as_written() -> tf.data.Options:
    """Returns options under which tf.data runs a pipeline without rewriting its graph first.

    The rewrites fuse and parallelize simple transformations, of which there are none to gain from:
    images a second stay as they are. But they copy all functions of the graph, and decoding has so
    many that each start of a pipeline would take some two seconds more.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options
