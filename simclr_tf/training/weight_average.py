"""An exponential moving average of the trained weights, which is often better than the last ones.

Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; with the warm-up
of TensorFlow's `ExponentialMovingAverage`: decay min(decay, (1 + step) / (10 + step)).
"""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.followers import move_towards
from simclr_tf.models.networks import Networks, copy_values

# Added to a network's name, it is the name of its average, and of that group of a checkpoint.
SUFFIX = "_average"


@dataclasses.dataclass(frozen=True, eq=False)
class WeightAverage:
    """The average of networks, moving statistics included.

    Attributes:
      decay: share of the average that an update keeps, from 0 to below 1.
      source: the networks that are averaged.
      networks: their averages, in the same order.
    """

    decay: float
    source: Networks
    networks: Networks

    def update(self, step: keras.Variable) -> None:
        """Moves the averages towards the weights; part of the replica function.

        Args:
          step: number of updates so far, this one included: an int64 scalar.
        """
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(self.decay, (1.0 + count) / (10.0 + count))
        move_towards(self.networks.variables, self.source.variables, decay)


def weight_average(source: Networks, copy: Networks, decay: float) -> WeightAverage:
    """Returns the average of `source`, which starts with its values.

    Args:
      source: the networks to average.
      copy: the same networks, built again; their values are replaced.
      decay: share of the average that an update keeps.

    Raises:
      InvalidArgument: the decay is out of its range.
    """
    if not 0 <= decay < 1:
        raise InvalidArgument(
            "average_decay must be None, or from 0 to below 1. Received: "
            f"{decay}. 0.999 averages over about 1,000 steps."
        )
    copy_values(source, copy)
    return WeightAverage(decay, source, Networks({name + SUFFIX: m for name, m in copy.items()}))
