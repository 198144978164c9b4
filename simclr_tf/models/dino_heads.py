"""DINO's head and its prototypes (https://arxiv.org/abs/2104.14294, section 3.2 and appendix C)."""

from __future__ import annotations

import gin
import keras
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import InvalidArgument
from simclr_tf.models.heads import MAX_DIM, check_sizes, pytorch_initializer


@gin.configurable
def dino_projection_head(
    num_layers: int = 3,
    hidden_dim: int = 2048,
    output_dim: int = 256,
    batch_norm: bool = False,
    *,
    input_dim: int,
) -> keras.Model:
    """Builds DINO's projection head: layers with biases and GELU between, and rows of length 1.

    Kernels start from a truncated normal of 0.02, biases from zero. Layers that are normalized
    have no bias, which normalization would take away.

    Args:
        num_layers: Layers, the last one included.
        hidden_dim: Width between layers.
        output_dim: P, the dimension of the projection.
        batch_norm: Whether hidden layers are normalized over the global batch.
        input_dim: D, the dimension of the representation.

    Returns:
        A functional model named "projection_head" from representations [N, D] to a dict of
        "projection_0" (the input) to "projection_n" (z, [N, P] float32, of length 1).

    Raises:
        InvalidArgument: If a size is out of range.
    """
    check_sizes(num_layers, hidden_dim, output_dim, input_dim)
    inputs = x = keras.Input((input_dim,), name="representation")
    outputs = {"projection_0": keras.layers.Identity(dtype="float32", name="projection_0")(x)}
    for layer in range(1, num_layers + 1):
        name, last = f"projection_{layer}", layer == num_layers
        x = keras.layers.Dense(
            output_dim if last else hidden_dim,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            use_bias=last or not batch_norm,
            name=f"{name}_dense",
            dtype="float32" if last else None,
        )(x)
        if last:
            x = keras.layers.UnitNormalization(name=f"{name}_unit", dtype="float32")(x)
        else:
            x = SyncBatchNormalization(name=f"{name}_bn")(x) if batch_norm else x
            x = keras.layers.Activation("gelu", name=f"{name}_gelu")(x)
        outputs[name] = x
    return keras.Model(inputs, outputs, name="projection_head")


@keras.saving.register_keras_serializable(package="simclr_tf")
class UnitDense(keras.layers.Layer):
    """Products with directions: a dense layer without bias whose columns count as of length 1.

    It is weight normalization with a gain of 1 that is not trained.

    Args:
        units: K, the number of directions.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=pytorch_initializer(),
            name="kernel",
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.matmul(inputs, tf.math.l2_normalize(kernel, axis=0, epsilon=1e-12))

    def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units}


@gin.configurable
def prototypes(count: int = 65536, *, input_dim: int) -> keras.Model:
    """Builds the last layer of DINO: cosines of projections with K prototypes.

    Args:
        count: K, at least 2.
        input_dim: P, the dimension of the projection.

    Returns:
        A model named "prototypes" from projections [N, P] to [N, K] float32.

    Raises:
        InvalidArgument: If there are fewer than two prototypes, or far too many.
    """
    if not 2 <= count <= MAX_DIM:
        raise InvalidArgument(
            f"prototypes.count must be from 2 to {MAX_DIM:,}. Received: count={count}."
        )
    inputs = keras.Input((input_dim,), name="projection")
    outputs = UnitDense(count, dtype="float32", name="prototypes_dense")(inputs)
    return keras.Model(inputs, outputs, name="prototypes")
