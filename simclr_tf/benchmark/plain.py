"""SimCLR with Keras' own layers, the baseline of the project's step."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf.benchmark.loss import plain_nt_xent
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.models.heads import last_projection
from simclr_tf.models.packing import Conv2D, MaxPool, Unpack
from simclr_tf.models.remat import Remat


def plain_copy(model: keras.Model) -> keras.Model:
    """Copies a network into Keras' layers, in float32, all activations kept, with new weights.

    Convolutions, normalizations and max-pooling are replaced; layers without a counterpart in
    Keras, such as those of selective kernels, stay.
    """
    with dtype_policy("float32"):
        return keras.models.clone_model(model, clone_function=_plain_layer)


def plain_step(
    encoder: keras.Model, projection_head: keras.Model
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Returns a step of SGD on NT-Xent as four products: batch -> loss, and nothing else."""
    variables = [*encoder.trainable_variables, *projection_head.trainable_variables]
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(variables)

    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            representation = encoder(batch["images"], training=True)["final_avg_pool"]
            projections = projection_head(representation, training=True)
            loss = plain_nt_xent(last_projection(projections))
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]))
        return loss

    return step


def _plain_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, Remat):
        return plain_copy(layer.block)
    if isinstance(layer, SyncBatchNormalization):
        return keras.layers.BatchNormalization(
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            center=layer.center,
            scale=layer.scale,
            gamma_initializer=layer.gamma_initializer,
            name=layer.name,
        )
    if isinstance(layer, Conv2D):
        return _plain_convolution(layer)
    if isinstance(layer, MaxPool):
        return keras.layers.MaxPooling2D(3, 2, padding="same", name=layer.name)
    if isinstance(layer, Unpack):
        return keras.layers.Identity(name=layer.name)
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


def _plain_convolution(layer: Conv2D) -> keras.layers.Layer:
    """Pads both sides equally; Keras' "same" pads a strided convolution only at the end."""
    stride, size = layer.strides[0], layer.kernel_size[0]
    convolution = keras.layers.Conv2D(
        layer.filters,
        size,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=layer.kernel_initializer,
        name=layer.name,
    )
    if stride == 1 or size == 1:
        return convolution
    before = (size - 1) // 2
    padding = keras.layers.ZeroPadding2D(((before, size - 1 - before),) * 2)
    return keras.Sequential([padding, convolution])
