"""LARS: layer-wise adaptive rate scaling (You et al., https://arxiv.org/abs/1708.03888)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument


@keras.saving.register_keras_serializable(package="simclr_tf")
class LARS(keras.optimizers.Optimizer):
    """Momentum SGD in which each variable's step is proportional to the variable's norm.

    For a variable w with gradient g, as in google-research/simclr:

        g <- g + weight_decay * w
        ratio = eta * ||w|| / ||g||   (1 if either norm is zero)
        v <- momentum * v + learning_rate * ratio * g
        w <- w - v

    An excluded variable has no decay and ratio 1. SimCLR excludes biases, batch normalization and
    the probe; pass them to `exclude` before the optimizer is built.

    >>> kernel, bias = keras.Variable([3.0, 4.0], name="kernel"), keras.Variable(1.0, name="bias")
    >>> optimizer = LARS(learning_rate=1.0, eta=0.001)
    >>> optimizer.exclude([bias])
    >>> optimizer.build([kernel, bias])
    >>> optimizer.apply([tf.constant([0.0, 2.0]), tf.constant(0.5)])
    >>> print(*(f"{w:.3f}" for w in (*kernel.numpy(), bias.numpy())))  # ratio 0.001 * 5 / 2, or 1
    3.000 3.995 0.500

    Under a strategy Keras sums the gradients over replicas before `update_step` sees them.

    Args:
        learning_rate: A float or a schedule.
        momentum: Weight of the old velocity.
        weight_decay: L2 in the gradient, and so inside the norm (not Keras' decoupled decay).
        eta: The trust coefficient.
        nesterov: Whether to step by momentum * v + learning_rate * ratio * g instead of v.
        excluded_paths: Paths of variables to exclude, as `exclude` would add.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
        nesterov: bool = False,
        excluded_paths: Sequence[str] = (),
        name: str = "lars",
        **kwargs,
    ):
        if momentum < 0 or momentum >= 1 or weight_decay < 0 or eta <= 0:
            raise InvalidArgument(
                "LARS needs 0 <= momentum < 1, weight_decay >= 0 and eta > 0. Received: "
                f"momentum={momentum}, weight_decay={weight_decay}, eta={eta}."
            )
        if kwargs.get("gradient_accumulation_steps"):
            raise ValueError(
                "gradient_accumulation_steps must be unset: accumulated gradients come from small "
                "batches, which do not give SimCLR the negatives of a large one. Received: "
                f"gradient_accumulation_steps={kwargs['gradient_accumulation_steps']}."
            )
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        # The base class would use `self.weight_decay` as its own decoupled decay.
        self.l2 = weight_decay
        self.eta = eta
        self.nesterov = nesterov
        self._excluded_paths = set(excluded_paths)

    @property
    def excluded_paths(self) -> list[str]:
        """Sorted paths of the variables without decay and adaptation."""
        return sorted(self._excluded_paths)

    def exclude(self, variables: Iterable[keras.Variable]) -> None:
        """Adds variables that get no weight decay and trust ratio 1; call it before `build`."""
        if self.built:
            raise ValueError("exclude must come before the optimizer is built.")
        self._excluded_paths.update(v.path for v in variables)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        paths = [v.path for v in variables]
        if len(set(paths)) < len(paths):
            twice = sorted({path for path in paths if paths.count(path) > 1})
            raise ValueError(f"LARS tells variables apart by path. Received twice: {twice}.")
        if variables and self._excluded_paths.issuperset(paths):
            raise ValueError(
                "LARS needs at least one variable to adapt, or it is momentum SGD. Received: "
                f"{len(paths)} variables, all of them excluded."
            )
        super().build(variables)
        self._adapted = [path not in self._excluded_paths for path in paths]
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Updates one variable, or one replica's copy of it, from the summed gradient."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        weight = tf.convert_to_tensor(variable)
        gradient = tf.cast(gradient, weight.dtype)
        step = tf.cast(learning_rate, weight.dtype)
        if self._adapted[index]:
            gradient += self.l2 * weight
            step *= self._trust_ratio(weight, gradient)
        new_velocity = self.momentum * velocity + step * gradient
        self.assign(velocity, new_velocity)
        update = self.momentum * new_velocity + step * gradient if self.nesterov else new_velocity
        self.assign_sub(variable, update)

    def trust_ratios(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the current trust ratios of gradients, [number of adapted variables].

        Args:
            gradients: Gradients of the optimizer's variables, summed over replicas.
        """
        weights = [tf.convert_to_tensor(v.value) for v in self._trainable_variables]
        return tf.stack(
            [
                self._trust_ratio(weight, tf.cast(gradient, weight.dtype) + self.l2 * weight)
                for weight, gradient, adapted in zip(weights, gradients, self._adapted, strict=True)
                if adapted
            ]
        )

    def _trust_ratio(self, weight: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        weight_norm, gradient_norm = tf.norm(weight), tf.norm(gradient)
        ratio = self.eta * tf.math.divide_no_nan(weight_norm, gradient_norm)
        return tf.where((weight_norm > 0) & (gradient_norm > 0), ratio, tf.ones_like(ratio))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "eta": self.eta,
            "nesterov": self.nesterov,
            "excluded_paths": self.excluded_paths,
        }
