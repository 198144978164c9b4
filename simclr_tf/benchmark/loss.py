"""The cost of NT-Xent: loss and gradient, in blocks and as four plain matrix products."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.benchmark.timing import Timing, take_turns
from simclr_tf.objectives.nt_xent import NTXent

PLAIN = "four plain products"


def measure(global_batch: int, dim: int, rounds: int) -> list[Timing]:
    """Times loss and gradient of one batch on one device, in steps.

    The plain form holds all similarities at once, and is skipped if they would not fit.
    """
    projections = tf.random.stateless_normal([2 * global_batch, dim], seed=(0, 1))

    def ours(z: tf.Tensor) -> tf.Tensor:
        return NTXent()(z)[0]

    forms = {"nt_xent": ours}
    if 4 * (2 * global_batch) ** 2 <= 2**30:
        forms = {PLAIN: plain_nt_xent, **forms}
    contestants = {name: _gradient_of(form, projections) for name, form in forms.items()}
    return take_turns(contestants, rounds=rounds, baseline=next(iter(contestants)))


def plain_nt_xent(projections: tf.Tensor, temperature: float = 0.1) -> tf.Tensor:
    """Computes the loss as the reference does: views a and b, each against itself and the other."""
    z = tf.math.l2_normalize(projections, axis=1)
    a, b = tf.split(z, 2)
    batch = a.shape[0]
    itself = tf.eye(batch) * 1e9
    aa = tf.matmul(a, a, transpose_b=True) / temperature - itself
    bb = tf.matmul(b, b, transpose_b=True) / temperature - itself
    ab = tf.matmul(a, b, transpose_b=True) / temperature
    ba = tf.matmul(b, a, transpose_b=True) / temperature
    labels = tf.range(batch)
    losses = [
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.concat(logits, axis=1))
        for logits in ([ab, aa], [ba, bb])
    ]
    return (tf.reduce_mean(losses[0]) + tf.reduce_mean(losses[1])) / 2.0


def _gradient_of(form, projections: tf.Tensor):
    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(projections)
            loss = form(projections)
        return loss, tape.gradient(loss, projections)

    def run() -> int:
        loss, slope = gradient()
        del slope
        float(loss)
        return 1

    return run
