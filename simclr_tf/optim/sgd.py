"""Momentum SGD with weight decay in the gradient, as most methods but SimCLR define it."""

from __future__ import annotations

import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument


@keras.saving.register_keras_serializable(package="simclr_tf")
class SGD(keras.optimizers.SGD):
    """SGD whose weight decay is a part of every variable's gradient: biases and norms included.

        g <- g + weight_decay * w
        v <- momentum * v - learning_rate * g
        w <- w + v   (nesterov: w + momentum * v - learning_rate * g)

    Keras' own `weight_decay` passes by the momentum: at 0.9 it decays ten times less. (PyTorch
    multiplies by the rate after the momentum; where the rate drops, that step is shorter there.)

    Args:
        learning_rate: A float or a schedule.
        momentum: Weight of the old velocity.
        nesterov: Whether to look ahead by the velocity.
        l2: The weight decay.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: float = 0.9,
        nesterov: bool = False,
        l2: float = 0.0,
        name: str = "sgd",
        **kwargs,
    ):
        if not 0 <= momentum < 1 or l2 < 0:
            raise InvalidArgument(
                "SGD needs 0 <= momentum < 1 and weight_decay >= 0. Received: "
                f"momentum={momentum}, weight_decay={l2}."
            )
        super().__init__(learning_rate, float(momentum), nesterov, name=name, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Updates one variable, or one replica's copy of it, from the summed gradient."""
        weight = tf.convert_to_tensor(variable)
        decayed = tf.cast(gradient, weight.dtype) + self.l2 * weight
        super().update_step(decayed, variable, learning_rate)

    def get_config(self) -> dict:
        return {**super().get_config(), "l2": self.l2}
