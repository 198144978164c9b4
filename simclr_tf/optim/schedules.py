"""The learning rate: scaling with the batch; warm-up and cosine (SimCLR appendix B.1), or steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument

SCALINGS = ("linear", "sqrt", "none")
MAX_STEPS = 2**31


class RunSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """What a run asks of its learning rate beside the rate itself.

    Attributes:
        peak: The highest rate.
        warmup_steps: Steps before it is reached.
        total_steps: Steps of the run, warm-up included.
        words: The shape, for the plan of a run.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    words: str


@keras.saving.register_keras_serializable(package="simclr_tf")
class WarmupCosine(RunSchedule):
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to 0, without restarts.

    Args:
        peak: Learning rate at the end of the warm-up.
        warmup_steps: Steps of warm-up; 0 starts at the peak.
        total_steps: Steps of the run, warm-up included; afterwards the rate stays 0.
    """

    words = "warm-up then cosine to 0"

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


@keras.saving.register_keras_serializable(package="simclr_tf")
class Steps(RunSchedule):
    """A constant rate that is multiplied by a factor at some steps, without warm-up.

    Args:
        peak: Learning rate at the start.
        drops: The steps from which on the rate is `factor` times that of before, in their order.
        factor: See there.
        total_steps: Steps of the run.
    """

    warmup_steps = 0

    def __init__(self, peak: float, drops: Sequence[int], factor: float, total_steps: int):
        if peak < 0 or not 0 < factor <= 1 or total_steps < 1 or list(drops) != sorted(set(drops)):
            raise InvalidArgument(
                "A schedule needs peak >= 0, drops in their order, 0 < factor <= 1 and "
                f"total_steps >= 1. Received: peak={peak}, drops={drops}, factor={factor}, "
                f"total_steps={total_steps}."
            )
        self.peak = float(peak)
        self.drops = tuple(int(step) for step in drops)
        self.factor = float(factor)
        self.total_steps = int(total_steps)

    @property
    def words(self) -> str:
        steps = ", ".join(f"{step:,}" for step in self.drops if step < self.total_steps)
        return f"multiplied by {self.factor:g} at steps {steps}" if steps else "constant"

    def __call__(self, step) -> tf.Tensor:
        """Returns the learning rate, float32 scalar, of the update after `step` updates."""
        factors = [
            tf.where(tf.cast(step, tf.int32) < drop, 1.0, self.factor) for drop in self.drops
        ]
        return self.peak * tf.reduce_prod(tf.stack([1.0, *factors]))

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "drops": self.drops,
            "factor": self.factor,
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
    """Returns the steps of a share of a run, the reference's N * epochs // G."""
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
def stepped_learning_rate(
    base: float = 0.03,
    scaling: str = "linear",
    drop_epochs: Sequence[float] = (120.0, 160.0),
    factor: float = 0.1,
    *,
    epochs: float,
    num_examples: int,
    global_batch: int,
) -> Steps:
    """Returns a schedule that drops after some epochs, such as MoCo v1's.

    Args:
        base: Learning rate before scaling.
        scaling: See `scale_learning_rate`.
        drop_epochs: The epochs after which the rate is multiplied by `factor`.
        factor: See there.
        epochs: Length of the run in epochs.
        num_examples: Images per epoch.
        global_batch: Images per step over all replicas.
    """
    drops = [warmup_steps_for(epoch, num_examples, global_batch) for epoch in drop_epochs]
    peak = scale_learning_rate(base, global_batch, scaling)
    return Steps(peak, drops, factor, steps_for(epochs, num_examples, global_batch))


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
