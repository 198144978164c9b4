"""A convolution whose kernel's gradient, on a CPU, comes from matrix products where that is faster.

TensorFlow's kernel for bfloat16 on CPUs (oneDNN's `jit_bf16`) sums the gradient in float32, image
after image. Once these sums do not stay in a core's cache it runs at a quarter of the speed that
matrix products have, and the last two groups of a ResNet-18 take half of a step that way. The same
gradient is a product for each of a kernel's taps: of what the tap saw, and the output's gradient.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf.distribute.xla import in_xla

# The second-level cache of a core: 512 KiB to 2 MiB on processors with bfloat16 instructions.
_CACHE_BYTES = 2**20


def conv2d(x: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """`tf.nn.conv2d`, with the same gradient up to rounding.

    It differs only in bfloat16 on a CPU, and for feature maps of known size. So exported networks,
    which know none, hold no custom gradient.

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
    """The gradient [k, k, C, F] with respect to the kernel of `tf.nn.conv2d`, by matrix products.

    Args:
        x: [N, H, W, C].
        dy: [N, h, w, F], the gradient with respect to the convolution's output.
        size: k.
        stride: of the convolution.
        padding: "SAME", with stride 1 alone, or "VALID".
    """
    channels, (height, width, filters) = x.shape[-1], dy.shape[1:]
    before = (size - 1) // 2 if padding == "SAME" else 0
    # Rows and columns by their place in a stride, so that what a tap saw lies side by side.
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
