"""Batch normalization over the global batch (SimCLR section 2.2: "Global BN")."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives, fused_batch_norm
from simclr_tf.distribute.xla import in_xla

# Per thread, since replicas and exports are traced in separate threads.
_STATISTICS_FROZEN = contextvars.ContextVar("moving_statistics_frozen", default=False)
_GROUPS = contextvars.ContextVar("batch_norm_groups", default=1)


@keras.saving.register_keras_serializable(package="simclr_tf")
class SyncBatchNormalization(keras.layers.Layer):
    """Normalizes the last axis with the mean and variance of all replicas' batches together.

    With local statistics the network could infer the replica, and with it the positive, from the
    normalization alone.

    All replicas must hold batches of the same shape. TensorFlow's fused kernels compute it, with
    one small collective each way if there are several replicas, and without cancellation. XLA (TPU,
    jit_compile) has no such kernels, so there the layer sums squared deviations of feature maps
    from the moving mean: one pass and one small collective each way, the cost of
    E[x^2] - E[x]^2, but exact once the moving mean is within some hundred standard deviations of
    the mean. (`keras.layers.BatchNormalization(synchronized=True)` takes E[x^2] - E[x]^2, which
    permanently loses everything at a mean of 1000 and a deviation of 0.1.)

    The moving statistics follow the biased variance, as in the SimCLR reference. Their updates are
    equal on all replicas, so every replica writes its own copy and no aggregation is needed.
    `trainable = False` means inference mode: the moving statistics are used and not updated.

    Inside `separate_statistics` each part of the images has a mean and variance of its own, and the
    moving statistics follow their average.

    Statistics and parameters are float32 under any dtype policy; the output has the policy's
    compute dtype.

    >>> layer = SyncBatchNormalization()
    >>> layer(tf.constant([[1.0], [3.0]]), training=True).numpy().round(3).tolist()
    [[-1.0], [1.0]]

    Args:
        momentum: Weight of the old moving statistics at each update.
        epsilon: Added to the variance.
        center: Whether to add a learned offset `beta`.
        scale: Whether to multiply by a learned `gamma`.
        gamma_initializer: "zeros" for the last normalization of a residual branch.

    Call arguments:
        inputs: [..., C] of rank 2 or more, or [..., K*C], which holds K copies of the C channels.
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
        channels = self.moving_mean.shape[0]
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels])
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels])
        if not (training and self.trainable):
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
            if in_xla():  # XLA fuses this; an output of the kernel has no static shape
                wide = [repeat(v, x.shape[-1]) for v in (gamma, beta, mean, variance)]
                gamma, beta, mean, variance = wide
                scale = gamma * tf.math.rsqrt(variance + self.epsilon)
                y = (tf.cast(x, tf.float32) - mean) * scale + beta
            else:
                y = fused_batch_norm.infer(x, gamma, beta, mean, variance, self.epsilon)
        else:
            y, mean, variance = self._normalize(x, gamma, beta)
            if not _STATISTICS_FROZEN.get():
                self._update(self.moving_mean, mean)
                self._update(self.moving_variance, variance)
        return tf.cast(y, self.compute_dtype)

    def _normalize(self, x, gamma, beta) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalizes with the statistics of the batch: (y, mean [C], biased variance [C])."""
        groups, replicas = _GROUPS.get(), collectives.num_replicas()
        if groups == 1:
            return self._form(x, 1)(x, gamma, beta, epsilon=self.epsilon)
        if groups % replicas and replicas % groups:
            raise ValueError(
                "The groups of images with statistics of their own must divide the replicas, or "
                f"the other way round. Received: groups={groups}, replicas={replicas}."
            )
        found = [
            self._form(part, min(groups, replicas))(part, gamma, beta, epsilon=self.epsilon)
            for part in tf.split(x, max(groups // replicas, 1))
        ]
        ys, *statistics = zip(*found, strict=True)
        own = tf.reduce_mean(tf.stack(statistics), axis=1)
        return tf.concat(ys, axis=0), *tf.unstack(collectives.all_reduce_mean(own))

    def _form(
        self, x: tf.Tensor, groups: int
    ) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Returns (x, gamma, beta, epsilon) -> (y, mean [C], biased variance [C]) to use here.

        Args:
            x: What will be normalized, or like it.
            groups: In how many groups the replicas stand, 1 for all of them together.
        """
        if in_xla():
            return functools.partial(_normalize_in_xla, shift=self._shift(x, groups), groups=groups)
        if collectives.num_replicas() == groups:
            return fused_batch_norm.normalize
        return functools.partial(fused_batch_norm.normalize_over_replicas, groups=groups)

    def _shift(self, x: tf.Tensor, groups: int) -> tf.Tensor:
        """Returns a value at or near the mean [C], from which deviations are summed.

        Passes over feature maps bound a TPU's speed, so feature maps use the moving mean. Vectors,
        as in a projection head, are few enough for a separate pass, which they need: those of an
        untrained encoder differ by hundredths of their mean.
        """
        if x.shape.rank > 2:
            return tf.convert_to_tensor(self.moving_mean)
        local = tf.reduce_mean(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))
        return tf.stop_gradient(collectives.group_mean(local, groups))

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


def normalizes_batches(model: keras.Model) -> bool:
    """Returns whether a layer at any depth normalizes images by the statistics of each other."""
    return any(isinstance(layer, SyncBatchNormalization) for layer in model._flatten_layers())


def local_normalizations(model: keras.Model) -> list[str]:
    """Returns the names of layers, at any depth, that normalize over their own replica alone."""
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not layer.synchronized
    ]


@contextlib.contextmanager
def moving_statistics_frozen() -> Iterator[None]:
    """Stops updates of moving statistics in training mode, for computing activations again.

    It affects the calling thread alone.
    """
    token = _STATISTICS_FROZEN.set(True)
    try:
        yield
    finally:
        _STATISTICS_FROZEN.reset(token)


@contextlib.contextmanager
def separate_statistics(groups: int) -> Iterator[None]:
    """Has normalization in training mode use statistics of equal parts of the global batch.

    A part is images that follow each other, of one replica or of several. With as many parts as
    replicas this is batch normalization as it is without synchronization; the numbers of groups
    and replicas must divide each other. It affects the calling thread alone.

    Args:
        groups: The number of parts.
    """
    token = _GROUPS.set(groups)
    try:
        yield
    finally:
        _GROUPS.reset(token)


def statistics_groups() -> int:
    """Returns the number of `separate_statistics` here, 1 outside of it."""
    return _GROUPS.get()


def _normalize_in_xla(x, gamma, beta, shift, epsilon: float, groups: int):
    """Normalizes over a group of replicas and K copies of C channels: (y float32, mean, variance).

    Both statistics, relative to `shift`, take one pass and one collective; so do both sums of the
    gradient, which is written out because autodiff would need two of each.
    """
    copies = x.shape[-1] // gamma.shape[0]
    axes = list(range(x.shape.rank - 1))

    def fold(totals: list[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(tf.reshape(tf.stack(totals), [len(totals), copies, -1]), axis=1)

    def wide(v: tf.Tensor) -> tf.Tensor:
        return repeat(v, x.shape[-1])

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        count = tf.cast(tf.size(x) // gamma.shape[0], tf.float32)
        off = tf.cast(x, tf.float32) - wide(shift)
        totals = fold([tf.reduce_sum(off, axes), tf.reduce_sum(tf.square(off), axes)])
        offset, square = tf.unstack(collectives.group_mean(totals / count, groups))
        mean, variance = shift + offset, tf.maximum(square - tf.square(offset), 0.0)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = inverse * gamma
        y = (tf.cast(x, tf.float32) - wide(mean)) * wide(scale) + wide(beta)

        def gradient(dy, *_):
            centred = tf.cast(x, tf.float32) - wide(mean)
            sums = fold([tf.reduce_sum(dy, axes), tf.reduce_sum(dy * centred, axes)])
            mean_dy, covariance = tf.unstack(collectives.group_mean(sums / count, groups))
            slope = tf.square(inverse) * covariance
            dx = (dy - wide(mean_dy) - centred * wide(slope)) * wide(scale)
            return tf.cast(dx, x.dtype), sums[1] * inverse, sums[0]

        return (y, mean, variance), gradient

    return normalize(x, gamma, beta)


def repeat(v: tf.Tensor, channels: int) -> tf.Tensor:
    """Repeats [C] to [K*C], with K*C = `channels`."""
    copies = channels // v.shape[0]
    return tf.tile(v, [copies]) if copies > 1 else v
