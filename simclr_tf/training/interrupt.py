"""SIGTERM and SIGINT: finish the steps at hand, save, and say so."""

from __future__ import annotations

import signal

import tensorflow as tf

from simclr_tf.distribute import collectives


class StopRequest:
    """While open, SIGTERM and SIGINT only note that the run should stop.

    A second SIGINT interrupts at once, as a person at a keyboard expects.
    """

    def __init__(self):
        self.requested = False
        self._handlers = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def make_agreement(strategy: tf.distribute.Strategy):
    """Builds `any_host(flag)`: whether any host says so; also a barrier for all hosts."""
    if not spans_hosts(strategy):
        return lambda flag: flag

    @tf.function
    def count(flag: tf.Tensor) -> tf.Tensor:
        # The sum gives the vote a place on the replica's device, which the reduction asks for.
        votes = strategy.run(lambda: collectives.all_reduce_sum(flag + 0.0))
        return strategy.experimental_local_results(votes)[0]

    return lambda flag: bool(count(tf.constant(float(flag))) > 0)


def spans_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes run this program together."""
    resolver = strategy.cluster_resolver
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return sum(map(len, resolver.cluster_spec().as_dict().values())) > 1
    return False


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    resolver = strategy.cluster_resolver
    if not spans_hosts(strategy):
        return True
    first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)
