"""SimCLRv2's changes to ResNets: selective kernels, with the shortcuts of ResNet-D.

Chen et al., "Big self-supervised models are strong semi-supervised learners"
(https://arxiv.org/abs/2006.10029), section 2; Li et al., "Selective kernel networks"
(https://arxiv.org/abs/1903.06586); He et al., "Bag of tricks" (https://arxiv.org/abs/1812.01187).
As in google-research/simclr, both streams have 3x3 kernels, so one convolution computes both.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization

_SMALLEST_HIDDEN = 32


def mix_streams(x, sk_ratio: float, name: str):
    """Mixes two streams channel by channel, in shares computed from both, pooled over all places.

    Args:
        x: [N, H, W, 2F], the first stream's channels and then the second's, after their ReLU.
        sk_ratio: width of the hidden layer as a share of F; the width is at least 32.
        name: prefix of the layers' names `_mix_dense1`, `_mix_bn` and `_mix_dense2`.

    Returns:
        [N, H, W, F].
    """
    filters = x.shape[-1] // 2
    hidden = max(int(filters * sk_ratio), _SMALLEST_HIDDEN)
    features = PoolStreams(name=f"{name}_mix_pool")(x)
    features = _dense(hidden, f"{name}_mix_dense1")(features)
    features = SyncBatchNormalization(name=f"{name}_mix_bn")(features)
    features = keras.layers.ReLU(name=f"{name}_mix_relu")(features)
    logits = _dense(2 * filters, f"{name}_mix_dense2")(features)
    return MixStreams(name=f"{name}_mix")([x, logits])


@keras.saving.register_keras_serializable(package="simclr_tf")
class PoolStreams(keras.layers.Layer):
    """The sum of two streams, averaged over all places: [N, H, W, 2F] -> [N, F]."""

    def call(self, inputs):
        means = tf.reduce_mean(tf.cast(inputs, tf.float32), [1, 2])
        return tf.cast(tf.add(*tf.split(means, 2, axis=-1)), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1] // 2)


@keras.saving.register_keras_serializable(package="simclr_tf")
class MixStreams(keras.layers.Layer):
    """The mean of two streams, weighted by a softmax over them.

    Call arguments:
        inputs: the streams [N, H, W, 2F] and their logits [N, 2F]; the output is [N, H, W, F].
    """

    def call(self, inputs):
        streams, logits = inputs
        first, second = tf.split(tf.cast(logits, tf.float32), 2, axis=-1)
        share = tf.cast(tf.sigmoid(first - second), self.compute_dtype)  # the softmax of two
        share = share[:, tf.newaxis, tf.newaxis]
        first, second = tf.split(streams, 2, axis=-1)
        return share * first + (1 - share) * second

    def compute_output_shape(self, input_shape):
        streams, _ = input_shape
        return (*streams[:-1], streams[-1] // 2)


@keras.saving.register_keras_serializable(package="simclr_tf")
class ShortcutPool(keras.layers.Layer):
    """2x2 average-pooling before the 1x1 convolution of a shortcut, which then needs no stride.

    With stride 1 a window at the end averages existing pixels only; with stride 2 and an odd side
    it includes zeros, as the reference does.

    Args:
        stride: 1 or 2.
    """

    def __init__(self, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs):
        if self.stride == 1:
            return tf.nn.avg_pool2d(inputs, 2, 1, "SAME")
        if any(side is None or side % 2 for side in inputs.shape[1:3]):
            inputs = tf.pad(inputs, [[0, 0], [0, 1], [0, 1], [0, 0]])
        return tf.nn.avg_pool2d(inputs, 2, self.stride, "VALID")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        sides = (side and -(-side // self.stride) for side in (height, width))
        return (batch, *sides, channels)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


def _dense(units: int, name: str) -> keras.layers.Dense:
    initializer = keras.initializers.VarianceScaling()
    return keras.layers.Dense(units, use_bias=False, kernel_initializer=initializer, name=name)
