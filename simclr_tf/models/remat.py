"""Rematerialization: keeps a block's input, and computes the rest again for the gradient."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from simclr_tf.distribute.batch_norm import (
    moving_statistics_frozen,
    separate_statistics,
    statistics_groups,
)
from simclr_tf.distribute.xla import in_xla

# Per thread, since an export may trace beside a training step.
_WITHOUT_REMAT = contextvars.ContextVar("without_remat", default=False)


@keras.saving.register_keras_serializable(package="simclr_tf")
class Remat(keras.Model):
    """Runs `block`; in training, computes its activations again instead of keeping them.

    (Chen et al., https://arxiv.org/abs/1604.06174.) The moving statistics of normalizations are
    updated once, and the collectives of training-mode normalization run twice.

    Args:
        block: a functional model with one input and one output.
    """

    def __init__(self, block: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.block = block

    def call(self, inputs, training: bool | None = None):
        if not training or _WITHOUT_REMAT.get():
            return self.block.call(inputs, training=training)
        groups = statistics_groups()  # the gradient is computed after its context has ended

        @tf.custom_gradient
        def run(x):
            def gradient(dy, variables=()):
                # Without the barrier the compiler merges the two identical computations.
                again, later = _barrier(x, dy)
                with moving_statistics_frozen(), tf.GradientTape() as tape:
                    tape.watch(again)
                    with separate_statistics(groups):
                        y = self.block.call(again, training=True)
                dx, *dvariables = tape.gradient(y, [again, *variables], later)
                return (dx, dvariables) if variables else dx

            return self.block.call(x, training=True), gradient

        return run(inputs)

    def compute_output_shape(self, input_shape):
        return self.block.compute_output_shape(input_shape)

    def get_config(self):
        block = keras.saving.serialize_keras_object(self.block)
        return {"name": self.name, "trainable": self.trainable, "block": block}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "block": keras.saving.deserialize_keras_object(config["block"])})


@contextlib.contextmanager
def without_remat() -> Iterator[None]:
    """Turns rematerialization off, so that graphs of this thread hold no custom gradient."""
    token = _WITHOUT_REMAT.set(True)
    try:
        yield
    finally:
        _WITHOUT_REMAT.reset(token)


def _barrier(*tensors: tf.Tensor) -> list[tf.Tensor]:
    return gen_xla_ops.xla_optimization_barrier(tensors) if in_xla() else list(tensors)
