"""A convolution that computes its kernel's gradient by matrix products where a CPU is faster so.

TensorFlow's kernel for bfloat16 on CPUs (oneDNN's `jit_bf16`) sums the gradient in float32, image
after image. Once these sums exceed a core's cache it runs at a quarter of the speed of matrix
products, and the last two groups of a ResNet-18 then take half of a step. The same gradient is one
product for each tap of the kernel: the tap's inputs times the output's gradient.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf.distribute.xla import in_xla

# The second-level cache of a core: 512 KiB to 2 MiB on processors with bfloat16 instructions.
_CACHE_BYTES = 2**20


def conv2d(x: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """Computes `tf.nn.conv2d`, with the same gradient up to rounding.

    It differs only in bfloat16 on a CPU, for feature maps of static size. So exported networks,
    which have no static size, hold no custom gradient.

    Args:
        x: [N, H, W, C].
        kernel: [k, k, C, F].
        stride: 1 or 2.
        padding: "SAME", with stride 1 alone, or "VALID".
    """
    if not _products_are_faster(x, kernel):
        return tf.nn.conv2d(x, kernel, stride, padding)

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(dy):
            dx = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=dy,
                strides=[1, stride, stride, 1],
                padding=padding,
            )
            return dx, kernel_gradient(x, dy, kernel.shape[0], stride, padding)

        return tf.nn.conv2d(x, kernel, stride, padding), gradient

    return convolve(x, kernel)


def kernel_gradient(x: tf.Tensor, dy: tf.Tensor, size: int, stride: int, padding: str) -> tf.Tensor:
    """Computes the gradient [k, k, C, F] of `tf.nn.conv2d`'s kernel by matrix products.

    Args:
        x: [N, H, W, C].
        dy: [N, h, w, F], the gradient with respect to the convolution's output.
        size: k.
        stride: stride of the convolution.
        padding: "SAME", with stride 1 alone, or "VALID".
    """
    channels, (height, width, filters) = x.shape[-1], dy.shape[1:]
    before = (size - 1) // 2 if padding == "SAME" else 0
    # Order rows and columns by their place in a stride, so that a tap's inputs are contiguous.
    longer = (size - 1) // stride
    ends = [
        stride * (n + longer) - before - given
        for n, given in zip((height, width), x.shape[1:3], strict=True)
    ]
    x = x[:, : x.shape[1] + min(ends[0], 0), : x.shape[2] + min(ends[1], 0)]
    x = tf.pad(x, [[0, 0], *([before, max(end, 0)] for end in ends), [0, 0]])
    x = tf.reshape(x, [-1, height + longer, stride, width + longer, stride * channels])
    dy = tf.reshape(dy, [-1, filters])
    taps = []
    for i in range(size):
        for j in range(size):
            rows = slice(i // stride, i // stride + height)
            columns = slice(j // stride, j // stride + width)
            lanes = slice(j % stride * channels, (j % stride + 1) * channels)
            seen = tf.reshape(x[:, rows, i % stride, columns, lanes], [-1, channels])
            taps.append(tf.matmul(seen, dy, transpose_a=True))
    return tf.reshape(tf.stack(taps), [size, size, channels, filters])


def _products_are_faster(x: tf.Tensor, kernel: tf.Tensor) -> bool:
    return (
        kernel.dtype == tf.bfloat16
        and 4 * math.prod(kernel.shape) >= _CACHE_BYTES
        and None not in x.shape[1:]
        and not in_xla()
        and not tf.config.list_logical_devices("GPU")
    )
