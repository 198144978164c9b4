"""Batch normalization from TensorFlow's fused kernels, on one replica and over several.

Each kernel sees the batch of one replica. Means and variances of equally many values combine
exactly, without cancellation: the mean of all values is the mean of the means, and their variance
is the mean of the variances plus the mean squared deviation of the means. With y and its gradient
dy, and sums over all n values of a channel,

    dx = (dy - sum(dy) / n - x_hat * sum(dy * x_hat) / n) * gamma / deviation

With mean and variance as constants, the gradient kernel returns the first summand and both sums
of its replica. The rest is an affine function of x_hat, which the kernel computes in its inference
form.

Legend: x [..., C], or [..., K*C] with K copies of the C channels, float32, bfloat16 or float16.
Values per channel are float32 [C].
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.distribute import collectives

_NONE: tuple[float, ...] = ()


def infer(x, gamma, beta, mean, variance, epsilon: float) -> tf.Tensor:
    """Normalizes x by given statistics, in the dtype of x."""
    y, _, _ = _forward(x, gamma, beta, mean, variance, epsilon, training=False)
    return y


def normalize(x, gamma, beta, epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes by this batch's statistics: (y like x, mean [C], biased variance [C])."""
    y, mean, variance = _forward(x, gamma, beta, _NONE, _NONE, epsilon, training=True)
    count = tf.cast(tf.size(x) // gamma.shape[0], tf.float32)
    # The kernel reports sum / max(count - 1, 1); we keep sum / count.
    return y, mean, variance * (tf.maximum(count - 1.0, 1.0) / count)


def normalize_over_replicas(x, gamma, beta, epsilon: float, groups: int = 1):
    """Normalizes by the statistics of the replica's group: (y like x, mean, biased variance [C]).

    One collective each way: the statistics of every replica forward, two sums backward.

    Args:
        x: See the module, like `gamma` and `beta`.
        epsilon: Added to the variance.
        groups: In how many groups the replicas stand, 1 for all of them together.
    """

    @tf.custom_gradient
    def normalized(x, gamma, beta):
        _, *own = normalize(x, gamma, beta, epsilon)
        means, variances = tf.unstack(collectives.stack(tf.stack(own), groups), axis=1)
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)

        def gradient(dy, *_):
            dx, dgamma, dbeta = _backward(x, dy, gamma, mean, variance, epsilon)
            count = tf.cast(tf.size(x) // gamma.shape[0], tf.float32)
            means = collectives.group_mean(tf.stack([dgamma, dbeta]) / count, groups)
            slopes = means * gamma * tf.math.rsqrt(variance + epsilon)
            return dx - infer(x, slopes[0], slopes[1], mean, variance, epsilon), dgamma, dbeta

        return (infer(x, gamma, beta, mean, variance, epsilon), mean, variance), gradient

    return normalized(x, gamma, beta)


def _forward(x, gamma, beta, mean, variance, epsilon: float, training: bool):
    out = tf.raw_ops.FusedBatchNormV3(
        x=_images(x, gamma),
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=training,
    )
    return _like(out.y, x), out.batch_mean, out.batch_variance


def _backward(x, dy, gamma, mean, variance, epsilon: float):
    """Computes gradients with respect to x, gamma and beta, with mean and variance as constants."""
    out = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=_images(dy, gamma),
        x=_images(x, gamma),
        scale=gamma,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=_NONE,
        epsilon=epsilon,
        is_training=False,
    )
    return _like(out.x_backprop, x), out.scale_backprop, out.offset_backprop


def _images(x: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """Reshapes to [N, H, W, C], as the kernels need; copies of a channel become pixels."""
    if x.shape.rank == 4 and x.shape[-1] == gamma.shape[0]:
        return x
    return tf.reshape(x, [-1, 1, 1, gamma.shape[0]])


def _like(images: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Inverts `_images`."""
    if x.shape.rank == 4 and x.shape[-1] == images.shape[-1]:
        return images
    return tf.reshape(images, tf.shape(x))
