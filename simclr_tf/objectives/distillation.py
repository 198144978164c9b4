"""Cross-entropy with a teacher's probabilities (SimCLRv2, https://arxiv.org/abs/2006.10029)."""

from __future__ import annotations

import tensorflow as tf


def soft_cross_entropies(
    logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compares every row's classes with a teacher's, both at a temperature.

    Both results are multiplied by the square of the temperature, which keeps the gradient's size
    (Hinton, Vinyals, Dean, https://arxiv.org/abs/1503.02531, section 2).

    Args:
        logits: [B, C] float32.
        teacher_logits: [B, C] float32; it has no gradient.
        temperature: T, positive: both logits are divided by it.

    Returns:
        The cross-entropies [B], and what they are for a student that agrees: the entropies of the
        teacher [B].
    """
    wanted = tf.stop_gradient(teacher_logits) / temperature
    chances, scale = tf.nn.softmax(wanted), temperature**2

    def cross_entropies(logits: tf.Tensor) -> tf.Tensor:
        return -scale * tf.reduce_sum(chances * tf.nn.log_softmax(logits), axis=1)

    return cross_entropies(logits / temperature), cross_entropies(wanted)
