"""Tells whether XLA compiles the code being traced, and whether it compiles for this host's CPU."""

from __future__ import annotations

import functools

import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # no public way to see XLA while tracing

from simclr_tf.distribute import environment
from simclr_tf.errors import RequestError


def in_xla() -> bool:
    """Returns whether XLA will compile the code that is being traced."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


@functools.cache
def host_compiles() -> bool:
    """Tries whether a function with `jit_compile=True` runs on this process' CPU.

    TensorFlow's wheel for TPU hosts has no XLA:CPU: tensorflow-tpu 2.20 raises NotFoundError
    ("could not find registered transfer manager for platform Host") at the first call.
    """
    with tf.init_scope(), tf.device("/CPU:0"):
        square = tf.function(tf.square, jit_compile=True, autograph=False)
        try:
            return float(square(tf.constant(2.0))) == 4.0
        except tf.errors.OpError:
            return False


def check_host_compiles(what: str, extra: str) -> None:
    """Raises RequestError where TensorFlow cannot lower a step.

    Args:
      what: what needs it, for the message.
      extra: the extras of setup.py with which it works.
    """
    if not host_compiles():
        wheels = ", ".join(f"{n} {v}" for n, v in environment.tensorflow_owners().items())
        raise RequestError(
            f"{what} lowers the step by TensorFlow's XLA for the CPU, which the wheel for TPU "
            f"hosts lacks. Received: {wheels}. Run it {environment.reinstall(extra)}"
        )
