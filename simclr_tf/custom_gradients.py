"""Lets graphs with custom gradients be freed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """On leaving, removes the names of the custom gradients that were traced inside.

    TensorFlow registers each trace of a `tf.custom_gradient` under a name of its own, for as long
    as the process lives (`internal_grad_fn` in tensorflow/python/ops/custom_gradient.py), and with
    it the tensors and so the whole graph: for a training step of a ResNet-18, some 58,000 objects.
    Gradient tapes do not need the names. `tf.gradients` does, and so does a tape that sees a call
    of a `tf.function`: a function that was traced inside must have been differentiated there.
    """
    from tensorflow.python.framework import ops  # not before the command line is parsed

    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in registered.keys() - before:
            if name.startswith("CustomGradient-"):
                del registered[name]
