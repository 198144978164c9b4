"""Layer normalization of feature maps (https://arxiv.org/abs/1607.06450), for the ResNets."""

from __future__ import annotations

import keras
import tensorflow as tf

from simclr_tf.distribute.batch_norm import repeat


@keras.saving.register_keras_serializable(package="simclr_tf")
class LayerNorm(keras.layers.Layer):
    """Normalizes each image by the mean and variance of all its places and channels.

    Then each channel has a learned factor and offset. No image depends on another one, and training
    and inference are the same. It is group normalization of one group. (`keras.layers`'
    LayerNormalization has statistics of each place, or factors of a fixed size of map.)

    Statistics and parameters are float32 under any dtype policy; the output has the policy's
    compute dtype.

    >>> images = tf.constant([[[[1.0], [3.0]]], [[[5.0], [9.0]]]])
    >>> LayerNorm()(images)[:, 0, :, 0].numpy().round(3).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]

    Args:
        epsilon: Added to the variance.
        gamma_initializer: "zeros" for the last normalization of a residual branch.

    Call arguments:
        inputs: [N, H, W, C], or [N, H, W/K, K*C], which holds K copies of the C channels.
    """

    def __init__(
        self,
        epsilon: float = 1e-5,
        gamma_initializer: str | keras.initializers.Initializer = "ones",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def build(self, input_shape):
        channels = {"shape": input_shape[-1:], "dtype": "float32", "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer=self.gamma_initializer, **channels)
        self.beta = self.add_weight(name="beta", initializer="zeros", **channels)

    def call(self, inputs):
        x = tf.cast(inputs, tf.float32)
        gamma, beta = (
            repeat(tf.convert_to_tensor(v), x.shape[-1]) for v in (self.gamma, self.beta)
        )
        mean, variance = tf.nn.moments(x, [1, 2, 3], keepdims=True)
        scale = tf.math.rsqrt(variance + self.epsilon) * gamma
        return tf.cast((x - mean) * scale + beta, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        initializer = keras.initializers.serialize(self.gamma_initializer)
        own = {"epsilon": self.epsilon, "gamma_initializer": initializer}
        return {**super().get_config(), **own}
