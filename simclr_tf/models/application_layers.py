"""Layers for networks of `keras.applications`, in place of ones that do not fit this package."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="simclr_tf")
class Preprocessing(keras.layers.Layer):
    """The `preprocess_input` of a module of `keras.applications`, for images in [0, 1].

    Args:
        module: Name of the module, such as "mobilenet_v2".
    """

    def __init__(self, module: str, **kwargs):
        super().__init__(**kwargs)
        self.module = module
        self._function = getattr(keras.applications, module).preprocess_input

    def call(self, images):
        return self._function(255.0 * images, data_format="channels_last")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "module": self.module}


@keras.saving.register_keras_serializable(package="simclr_tf")
class Standardize(keras.layers.Layer):
    """Subtracts means and divides by deviations [C], which are variables that do not train."""

    def build(self, input_shape):
        channels = {"shape": input_shape[-1:], "trainable": False, "autocast": False}
        self.mean = self.add_weight(name="mean", initializer="zeros", **channels)
        self.variance = self.add_weight(name="variance", initializer="ones", **channels)

    def call(self, inputs):
        mean, variance = map(tf.convert_to_tensor, (self.mean, self.variance))
        deviation = tf.maximum(tf.sqrt(variance), keras.config.epsilon())
        return tf.cast((tf.cast(inputs, tf.float32) - mean) / deviation, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="simclr_tf")
class LayerScale(keras.layers.Layer):
    """Multiplies channels by factors gamma [C], as in ConvNeXt; Keras gives them no fixed name.

    Args:
        init_values: The factors' initial value.
    """

    def __init__(self, init_values: float, **kwargs):
        super().__init__(**kwargs)
        self.init_values = init_values

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(name="gamma", shape=input_shape[-1:], initializer=initializer)

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "init_values": self.init_values}
