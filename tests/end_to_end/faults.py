"""Faults that are put into a process before it runs the program, as text.

ACTION@OPERATION:PATH  just before the first such file operation on a path that has PATH in it
ACTION@batch:STEP      when the batch of that step, counted from 0, is made, ahead of its step
nan:STEP               the images of that step's batch are not numbers
stall:STEP:SECONDS     the batch of that step comes so much later
hold:STEP:FILE         the batch of that step comes once the file exists
clock                  the system's clock jumps by days, forth and back, at every look

An ACTION is `kill` (SIGKILL), `kill=SECONDS` (so much later), `TERM` (SIGTERM), or
`replace=OLD=NEW`, which puts a file in another's place.
"""

import os
import signal
import threading
import time

import numpy as np
import tensorflow as tf

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


def inject(fault: str) -> None:
    """Puts the fault into this process."""
    action, at, event = fault.partition("@")
    if at:
        operation, _, where = event.partition(":")
        on_event(operation, where, acting(*action.split("=")))
    else:
        kind, *details = fault.split(":")
        {"nan": nan, "stall": stall, "hold": hold, "clock": clock}[kind](*details)


def acting(name: str, *details: str):
    """The function that does what an ACTION says."""
    if name == "replace":
        return lambda: os.replace(details[1], details[0])
    number = {"kill": signal.SIGKILL, "TERM": signal.SIGTERM}[name]

    def send() -> None:
        os.kill(os.getpid(), number)

    return threading.Timer(float(details[0]), send).start if details else send


def on_event(operation: str, where: str, act) -> None:
    if operation == "batch":
        change_batches(lambda number: act() if number == int(where) else None)
        return
    holder, name = OPERATIONS[operation]
    real, waiting = getattr(holder, name), [act]

    def watched(*args, **kwargs):
        if waiting and any(isinstance(arg, str) and where in arg for arg in args):
            waiting.pop()()
        return real(*args, **kwargs)

    setattr(holder, name, watched)


def change_batches(look) -> None:
    """Calls `look(step)` for every batch, and multiplies its images by the result if there is one.

    A batch is made ahead of its step.
    """
    real = ViewsPipeline.dataset

    def factor(step):
        found = look(step)
        return np.float32(1 if found is None else found)

    def dataset(self, host, start_step=0):
        def changed(step, batch):
            number = tf.ensure_shape(tf.numpy_function(factor, [step], tf.float32), [])
            return batch | {"images": batch["images"] * number}

        return real(self, host, start_step).enumerate(start_step).map(changed)

    ViewsPipeline.dataset = dataset


def nan(step: str) -> None:
    change_batches(lambda number: np.nan if number == int(step) else None)


def stall(step: str, seconds: str) -> None:
    change_batches(lambda number: time.sleep(float(seconds)) if number == int(step) else None)


def hold(step: str, file: str) -> None:
    def look(number) -> None:
        while number == int(step) and not os.path.exists(file):
            time.sleep(0.05)

    change_batches(look)


def clock() -> None:
    real, rng, real_time = tf.timestamp, np.random.default_rng(0), time.time
    tf.timestamp = lambda: real() + tf.random.uniform([], -WEEK, WEEK, tf.float64)
    time.time = lambda: real_time() + rng.uniform(-WEEK, WEEK)
