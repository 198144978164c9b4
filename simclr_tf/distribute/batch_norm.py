"""Batch normalization over the global batch (SimCLR section 2.2: "Global BN")."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # no public way to see XLA while tracing

from simclr_tf.distribute import collectives


@keras.saving.register_keras_serializable(package="simclr_tf")
class SyncBatchNormalization(keras.layers.Layer):
    """Normalizes the last axis with the mean and variance of all replicas' batches together.

    Local statistics would let the network tell the replica, and with it the positive, from the
    normalization alone. The statistics are exact: a mean over all replicas, then the mean of the
    squared deviations from it. (`keras.layers.BatchNormalization(synchronized=True)` takes
    E[x^2] - E[x]^2, which loses everything at a mean of 1000 and a deviation of 0.1.)

    All replicas must hold batches of the same shape. One replica uses TensorFlow's fused kernel,
    except under XLA (TPU, jit_compile), whose version of it takes E[x^2] - E[x]^2 too.
    The moving statistics follow the biased variance, as in the SimCLR reference; they are updated
    with numbers that are the same everywhere, so every replica writes its own copy and no
    aggregation is needed. `trainable = False` means inference mode: the moving statistics are used
    and stay as they are.

    Statistics and parameters are float32 whatever the dtype policy; the output has the policy's
    compute dtype.

    Args:
        momentum: Weight of the old moving statistics at each update.
        epsilon: Added to the variance.
        center: Whether to add a learned offset `beta`.
        scale: Whether to multiply by a learned `gamma`.
        gamma_initializer: "zeros" for the last normalization of a residual branch.

    Call arguments:
        inputs: [..., C] of rank 2 or more.
        training: Whether to use, and to record, the statistics of the batch.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        gamma_initializer: str | keras.initializers.Initializer = "ones",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                "SyncBatchNormalization needs inputs of rank 2 or more with a known last axis. "
                f"Received: input_shape={tuple(input_shape)}, layer={self.name}."
            )
        channels = input_shape[-1]

        def weight(name: str, initializer, trainable: bool) -> keras.Variable:
            return self.add_weight(
                shape=(channels,),
                initializer=initializer,
                dtype="float32",
                trainable=trainable,
                autocast=False,
                name=name,
            )

        self.gamma = weight("gamma", self.gamma_initializer, True) if self.scale else None
        self.beta = weight("beta", "zeros", True) if self.center else None
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs, training: bool | None = None):
        x = tf.convert_to_tensor(inputs)
        channels = x.shape[-1]
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels])
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels])
        if not (training and self.trainable):
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
            y, _, _ = _fused(x, gamma, beta, mean, variance, self.epsilon, training=False)
        else:
            fused = collectives.num_replicas() == 1 and not _in_xla()
            normalize = _normalize_fused if fused else _normalize_two_pass
            y, mean, variance = normalize(x, gamma, beta, self.epsilon)
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance)
        return tf.cast(y, self.compute_dtype)

    def _update(self, moving: keras.Variable, value: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }


def _in_xla() -> bool:
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _normalize_two_pass(x, gamma, beta, epsilon: float):
    """Mean, then deviations from it, over all replicas: (y float32, mean [C], variance [C])."""
    x = tf.cast(x, tf.float32)
    axes = list(range(x.shape.rank - 1))
    mean = collectives.all_reduce_mean(tf.reduce_mean(x, axes))
    # d(variance)/d(mean) is zero at the mean: stopping it saves one collective per layer.
    deviation = tf.math.squared_difference(x, tf.stop_gradient(mean))
    variance = collectives.all_reduce_mean(tf.reduce_mean(deviation, axes))
    y = (x - mean) * (tf.math.rsqrt(variance + epsilon) * gamma) + beta
    return y, mean, variance


def _normalize_fused(x, gamma, beta, epsilon: float):
    """The fused kernel on this batch: (y like x, mean [C], biased variance [C])."""
    empty = tf.zeros([0])
    y, mean, variance = _fused(x, gamma, beta, empty, empty, epsilon, training=True)
    # The kernel reports sum / max(count - 1, 1); we keep sum / count.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
    return y, mean, variance * (tf.maximum(count - 1.0, 1.0) / count)


def _fused(x, gamma, beta, mean, variance, epsilon: float, training: bool):
    """FusedBatchNormV3 for any rank, which itself takes only [N, H, W, C]."""
    images = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    out = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=training,
    )
    y = out.y if x.shape.rank == 4 else tf.reshape(out.y, tf.shape(x))
    return y, out.batch_mean, out.batch_variance
