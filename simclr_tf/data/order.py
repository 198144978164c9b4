"""The order in which a host reads images: epochs of all images, each in a new random order.

Position p = 0, 1, 2, ... counts the images of a whole run over all hosts: epoch p // N holds each
of the N images once, and global batch s takes positions s*G to (s+1)*G - 1.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf.data import first_valid
from simclr_tf.distribute.strategy import HostSlice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The order in which a host reads a source.

    Attributes:
      seed: the run's seed.
      host: its part of every global batch.
      start_step: the first global batch.
      shuffle_buffer: records held to shuffle files that are read in order.
    """

    seed: int
    host: HostSlice
    start_step: int = 0
    shuffle_buffer: int = 1

    @property
    def block_size(self) -> int:
        """K, the number of images loaded together, a divisor of a replica's batch."""
        return first_valid.block_size(self.host.per_replica)

    def positions(self) -> tf.data.Dataset:
        """Returns the positions of the host's images, int64 scalars, endlessly."""
        host = self.host
        per_host = tf.constant(host.per_host, tf.int64)
        first = host.index * host.per_host

        def position(n: tf.Tensor) -> tf.Tensor:
            return n // per_host * host.global_batch + first + n % per_host

        return tf.data.Dataset.range(self.start_step * host.per_host, tf.int64.max).map(position)

    def at(self, position: tf.Tensor, num_examples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the epoch of a position, and the image at its place in that epoch's order."""
        epoch, place = position // num_examples, position % num_examples
        return epoch, self.shuffled(place, epoch, num_examples)

    def shuffled(self, place: tf.Tensor, epoch: tf.Tensor, num_examples: int) -> tf.Tensor:
        """Returns the image at `place` in an epoch's random permutation of all images."""
        seed = tf.stack([tf.fill(tf.shape(epoch), tf.cast(self.seed, tf.int64)), epoch], axis=-1)
        seed = tf.concat([seed, tf.zeros_like(seed[..., :1])], axis=-1)
        # tf.random.experimental.index_shuffle pads a batch of seeds along the wrong axis (TF 2.21).
        return tf.raw_ops.RandomIndexShuffle(
            index=place, seed=seed, max_index=tf.constant(num_examples - 1, tf.int64)
        )
