"""Runs the program with a fault in it: python tests/end_to_end/faulty.py FAULT ARGUMENTS...

kill:OPERATION:PATH  SIGKILL just before the first such file operation on a path that has PATH in it
nan:STEP             the images of that step, counted from 0, are not numbers
stall:STEP:SECONDS   the batch of that step comes so much later
clock                the system's clock jumps by days, forth and back, at every look
"""

import os
import signal
import sys
import time

import numpy as np
import tensorflow as tf

from simclr_tf import run
from simclr_tf.data.pipeline import ViewsPipeline

OPERATIONS = {
    "open": (tf.io.gfile, "GFile"),
    "makedirs": (tf.io.gfile, "makedirs"),
    "rename": (tf.io.gfile, "rename"),
    "rmtree": (tf.io.gfile, "rmtree"),
    "write": (tf.train.Checkpoint, "write"),
    "save": (tf.saved_model, "save"),
}
WEEK = 7 * 86400.0


def kill(operation: str, path: str) -> None:
    holder, name = OPERATIONS[operation]
    real = getattr(holder, name)

    def killing(*args, **kwargs):
        if any(isinstance(arg, str) and path in arg for arg in args):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(holder, name, killing)


def change_batches(factor) -> None:
    """Multiplies the images of every batch by `factor` of its step."""
    real = ViewsPipeline.dataset

    def dataset(self, host, start_step=0):
        def changed(step, batch):
            number = tf.ensure_shape(tf.numpy_function(factor, [step], tf.float32), [])
            return batch | {"images": batch["images"] * number}

        return real(self, host, start_step).enumerate(start_step).map(changed)

    ViewsPipeline.dataset = dataset


def nan(step: str) -> None:
    change_batches(lambda number: np.float32(np.nan if number == int(step) else 1))


def stall(step: str, seconds: str) -> None:
    def wait(number):
        time.sleep(float(seconds) if number == int(step) else 0)
        return np.float32(1)

    change_batches(wait)


def clock() -> None:
    real, rng, real_time = tf.timestamp, np.random.default_rng(0), time.time
    tf.timestamp = lambda: real() + tf.random.uniform([], -WEEK, WEEK, tf.float64)
    time.time = lambda: real_time() + rng.uniform(-WEEK, WEEK)


if __name__ == "__main__":
    kind, *details = sys.argv[1].split(":")
    {"kill": kill, "nan": nan, "stall": stall, "clock": clock}[kind](*details)
    sys.exit(run.main(sys.argv[2:]))
