"""The processes that run one program together: which one writes, and what they decide together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.distribute import collectives


def spans_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether several processes run this program together."""
    resolver = strategy.cluster_resolver
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return sum(map(len, resolver.cluster_spec().as_dict().values())) > 1
    return False


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes."""
    resolver = strategy.cluster_resolver
    if not spans_hosts(strategy):
        return True
    first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


class Agreed(NamedTuple):
    """The common decision of a run's hosts.

    Attributes:
      stop: whether any host was requested to stop.
      save: whether any host finds that it is time for a checkpoint.
      steps: length of the next call of the inner loop, the mean of the hosts' proposals.
    """

    stop: bool
    save: bool
    steps: int


def make_agreement(strategy: tf.distribute.Strategy) -> Callable[[bool, bool, int], Agreed]:
    """Builds `agree(stop, save, steps)`, which maps one host's wishes to all hosts' decision.

    It is also a barrier. All hosts get the same answer, and only that may decide how many steps
    they take together: sums of integers below 2^24 are exact in float32, in any order.
    """
    if not spans_hosts(strategy):
        return Agreed
    own_replicas = len(strategy.extended.worker_devices)
    hosts = strategy.num_replicas_in_sync // own_replicas

    @tf.function
    def total(wishes: tf.Tensor) -> tf.Tensor:
        # The sum places the vote on the replica's device, as the reduction requires.
        votes = strategy.run(lambda: collectives.all_reduce_sum(wishes + 0.0))
        return strategy.experimental_local_results(votes)[0]

    def agree(stop: bool, save: bool, steps: int) -> Agreed:
        sums = total(tf.constant([stop, save, steps], tf.float32)).numpy() / own_replicas
        return Agreed(bool(sums[0]), bool(sums[1]), int(sums[2]) // hosts)

    return agree
