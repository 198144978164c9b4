"""The learning rate: scaling with the batch, warm-up, cosine (SimCLR section 2.3, appendix B.1)."""

from __future__ import annotations

import math

import gin
import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument

SCALINGS = ("linear", "sqrt", "none")
MAX_STEPS = 2**31


@keras.saving.register_keras_serializable(package="simclr_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to 0, without restarts.

    Args:
        peak: Learning rate at the end of the warm-up.
        warmup_steps: Steps of warm-up; 0 starts at the peak.
        total_steps: Steps of the run, warm-up included; afterwards the rate stays 0.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        if peak < 0 or not 0 <= warmup_steps < total_steps:
            raise InvalidArgument(
                "A schedule needs peak >= 0 and 0 <= warmup_steps < total_steps. Received: "
                f"peak={peak}, warmup_steps={warmup_steps}, total_steps={total_steps}."
            )
        self.peak = float(peak)
        self.warmup_steps = int(warmup_steps)
        self.total_steps = int(total_steps)

    def __call__(self, step) -> tf.Tensor:
        """Returns the learning rate, float32 scalar, of the update after `step` updates."""
        step = tf.cast(step, tf.float32)
        warmup = self.peak * step / max(self.warmup_steps, 1)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        cosine = 0.5 * self.peak * (1.0 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0)))
        return tf.where(step < self.warmup_steps, warmup, cosine)

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }


def scale_learning_rate(base: float, global_batch: int, scaling: str) -> float:
    """Returns the peak learning rate for a batch size.

    Args:
        base: The recipe's number: 0.3 with "linear", 0.075 with "sqrt" on ImageNet.
        global_batch: Examples per step over all replicas.
        scaling: "linear" for base * G / 256, "sqrt" for base * sqrt(G), better for small batches
            and short runs (appendix B.1), "none" for base.
    """
    if scaling not in SCALINGS:
        raise InvalidArgument(
            f"scaling must be a known rule. Received: scaling={scaling!r}. "
            f"Valid: {', '.join(SCALINGS)}."
        )
    return (
        base * {"linear": global_batch / 256, "sqrt": math.sqrt(global_batch), "none": 1}[scaling]
    )


def steps_for(epochs: float, num_examples: int, global_batch: int) -> int:
    """Returns the steps of a run, the reference's N * epochs // G + 1; epochs may be fractional."""
    if not epochs * num_examples / global_batch < MAX_STEPS:
        raise InvalidArgument(
            f"epochs must be a number of passes, of less than {MAX_STEPS:,} steps. Received: "
            f"epochs={epochs}."
        )
    return int(num_examples * epochs // global_batch) + 1


def warmup_steps_for(epochs: float, num_examples: int, global_batch: int) -> int:
    """Returns the steps of a warm-up, the reference's N * epochs // G; epochs may be fractional."""
    return round(epochs * num_examples // global_batch)


@gin.configurable
def learning_rate(
    base: float = 0.3,
    scaling: str = "linear",
    warmup_epochs: float = 10.0,
    *,
    epochs: float,
    num_examples: int,
    global_batch: int,
) -> WarmupCosine:
    """Returns the recipe's schedule for the given batch and data.

    A warm-up that is not shorter than the run, as in a short trial, is cut to a tenth of the run,
    like 10 epochs of 100.

    Args:
        base: Learning rate before scaling.
        scaling: See `scale_learning_rate`.
        warmup_epochs: Length of the warm-up in epochs.
        epochs: Length of the run in epochs.
        num_examples: Images per epoch.
        global_batch: Images per step over all replicas.
    """
    total_steps = steps_for(epochs, num_examples, global_batch)
    warmup = warmup_epochs if warmup_epochs < epochs else epochs / 10
    warmup_steps = warmup_steps_for(warmup, num_examples, global_batch)
    peak = scale_learning_rate(base, global_batch, scaling)
    return WarmupCosine(peak, warmup_steps, total_steps)


@gin.configurable
def epochs_by_count(
    images_seen: float = 1e8, shortest: float = 100.0, longest: float = 800.0, *, num_examples: int
) -> float:
    """Returns epochs for a data set of any size: enough to show `images_seen`, within bounds.

    Small data sets need more epochs, since a run needs some thousand steps to learn at all; very
    many epochs of few images bring no further gain.

    Args:
        images_seen: Images that the run should show, augmented again each time.
        shortest: Fewest epochs, for large data sets.
        longest: Most epochs, for small data sets.
        num_examples: Images per epoch.
    """
    return min(max(images_seen / num_examples, shortest), longest)


@gin.configurable
def batch_by_count(
    share: float = 0.1, smallest: int = 32, largest: int = 1024, *, num_examples: int
) -> int:
    """Returns a global batch for a data set of any size: the largest power of two within bounds.

    An epoch then has at least 1 / share steps, until the smallest batch is reached.

    Args:
        share: Largest batch as a share of the images.
        smallest: Smallest batch, for few images.
        largest: Largest batch, for many images.
        num_examples: Images per epoch.
    """
    if not 1 <= smallest <= largest or not 0 < share <= 1:
        raise InvalidArgument(
            "batch_by_count needs 1 <= smallest <= largest, and a share above 0 and at most 1. "
            f"Received: share={share}, smallest={smallest}, largest={largest}."
        )
    wanted = max(min(int(share * num_examples), largest), smallest)
    return 2 ** int(math.log2(wanted))
