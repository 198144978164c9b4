"""Layers of the ResNets that, under XLA, pack feature maps with few channels.

A TPU keeps the channels of a feature map in rows of 128 lanes, and a map of 64 channels fills half
of each. So half of the memory traffic, which bounds a ResNet's first layers, is padding. Maps with
at most 64 channels are therefore packed: their columns lie side by side in pairs, a reshape from
[N, H, W, C] to [N, H, W/2, 2C], and stay so. A convolution spreads its kernel to the same sums over
packed columns, normalization folds the copies of a channel together, and additions and ReLU work
unchanged. The next strided convolution takes packed maps and returns plain ones, so nothing is
unpacked on the way. Weights and results are the same either way.

A layer tells a packed input from a plain one by the number of its channels. Models are built,
exported, and run outside XLA on plain maps alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.distribute.xla import in_xla
from simclr_tf.models.kernel_gradient import conv2d

_LANES = 128
# Columns of a stem's output, in the order in which it packs them. The max-pool after ImageNet's
# stem takes maxima of even and odd columns, so each kind fills separate lanes.
PACKED_FOR_POOL = (0, 2, 1, 3)
PACKED = (0, 1)


@keras.saving.register_keras_serializable(package="simclr_tf")
class Conv2D(keras.layers.Conv2D):
    """A convolution without bias, with symmetric padding that does not depend on the input's size.

    Args:
        filters: F.
        kernel_size: size of both sides.
        strides: 1 or 2.
        packs: for a stem, the order in which it packs columns under XLA.

    Call arguments:
        inputs: [N, H, W, C], or packed [N, H, W/2, 2C].
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int, packs: Sequence[int] = (), **kwargs
    ):
        super().__init__(filters, kernel_size, strides, padding="same", use_bias=False, **kwargs)
        self.packs = tuple(packs)

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        stride = self.strides[0]
        if self.kernel_size == (1, 1) and stride == 2 and in_xla():
            # Its gradient then scatters, which fuses with the next op, instead of convolving.
            # (Outside XLA nothing fuses, and picking every second place takes longer.)
            return tf.nn.conv2d(_every_second(inputs, kernel.shape[2]), kernel, 1, "VALID")
        columns = self._columns_to_give(inputs)
        if stride == 1 and not columns:
            return conv2d(inputs, kernel, 1, "SAME")  # a separate pad costs a CPU a copy
        strides = [stride, stride]
        padding = [_padding(size) for size in self.kernel_size]
        if columns:
            inputs = _pack(inputs, stride * len(columns) * kernel.shape[2])
            kernel, padding[1] = spread(kernel, stride, columns)
            strides[1] = 1
        if any(padding[0] + padding[1]):
            inputs = tf.pad(inputs, [[0, 0], *padding, [0, 0]])
        if columns:
            return tf.nn.conv2d(inputs, kernel, strides, "VALID")
        return conv2d(inputs, kernel, stride, "VALID")

    def _columns_to_give(self, inputs) -> Sequence[int]:
        """Returns the columns that the output packs, in order; empty without packed kernels."""
        stride = self.strides[0]
        if inputs.shape[-1] == 2 * self.kernel.shape[2]:
            return PACKED[: 2 // stride]
        if not self.packs or self.filters > _LANES // 2 or not in_xla():
            return ()
        length = stride * len(self.packs)
        fits = all(side and side % length == 0 for side in inputs.shape[1:3])
        return self.packs if fits else ()

    def get_config(self):
        config = {**super().get_config(), "packs": self.packs}
        return {k: v for k, v in config.items() if k not in ("padding", "use_bias")}


@keras.saving.register_keras_serializable(package="simclr_tf")
class MaxPool(keras.layers.Layer):
    """3x3/2 max-pooling, padded at the end where the size is even.

    Call arguments:
        inputs: [N, H, W, C], or packed as PACKED_FOR_POOL; the output is then packed in pairs.
    """

    def build(self, input_shape):
        self._channels = input_shape[-1]

    def call(self, inputs):
        if inputs.shape[-1] == self._channels:
            return tf.nn.max_pool2d(inputs, 3, 2, "SAME")
        return _max_pool_packed(inputs)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and -(-height // 2), width and -(-width // 2), channels)


@keras.saving.register_keras_serializable(package="simclr_tf")
class Unpack(keras.layers.Layer):
    """Returns plain feature maps [N, H, W, C] of maps whose columns may be packed in `order`."""

    def __init__(self, order: Sequence[int] = PACKED, **kwargs):
        super().__init__(**kwargs)
        self.order = tuple(order)

    def build(self, input_shape):
        self._channels = input_shape[-1]

    def call(self, inputs):
        if inputs.shape[-1] == self._channels:
            return inputs
        columns = tf.split(inputs, len(self.order), axis=-1)
        in_order = [columns[self.order.index(c)] for c in range(len(columns))]
        return _pack(tf.concat(in_order, axis=-1), self._channels)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "order": self.order}


def _pack(x: tf.Tensor, channels: int) -> tf.Tensor:
    """Packs so many columns side by side that feature maps have `channels` channels."""
    return tf.reshape(x, [-1, x.shape[1], x.shape[2] * x.shape[3] // channels, channels])


def spread(
    kernel: tf.Tensor, stride: int, columns: Sequence[int]
) -> tuple[tf.Tensor, tuple[int, int]]:
    """Returns a kernel that computes the same sums over packed columns, with stride 1.

    The output packs K columns, the input stride*K. Column K*n + q of the output starts at column
    stride*(K*n + q) - before of the input.

    Args:
        kernel: [h, w, C, F], which uses the padding `_padding(w)`.
        stride: stride over the columns.
        columns: the columns q of the output, in the order in which to pack them.

    Returns:
        The kernel [h, w', stride*K*C, K*F], and the padding of packed columns before and after.
    """
    height, width, channels, filters = kernel.shape
    packed = stride * len(columns)
    before, _ = _padding(width)
    first = -before // packed
    last = (stride * (len(columns) - 1) - before + width - 1) // packed
    length = (last - first + 1) * packed
    kernels = []
    for q in columns:
        start = stride * q - before - first * packed
        ends = (start, length - start - width)
        kernels.append(tf.pad(kernel, [[0, 0], ends, [0, 0], [0, 0]]))
    shape = [height, last - first + 1, packed * channels, len(columns) * filters]
    return tf.reshape(tf.concat(kernels, axis=-1), shape), (-first, last)


def _every_second(x: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns the places of even rows and columns, the only ones that a 1x1/2 convolution uses."""
    if x.shape[-1] == channels:
        return x[:, ::2, ::2]
    return x[:, ::2, :, :channels]


def _padding(size: int) -> tuple[int, int]:
    before = (size - 1) // 2
    return before, size - 1 - before


def _max_pool_packed(x: tf.Tensor) -> tf.Tensor:
    """Pools [N, H, W/4, 4C], packed as PACKED_FOR_POOL, to [N, H/2, W/4, 2C], packed as PACKED.

    Windows begin at columns 4n and 4n + 2, have their middles at 4n + 1 and 4n + 3, and end at
    4n + 2 and 4n + 4.
    """
    rows = tf.nn.max_pool2d(x, [3, 1], [2, 1], "SAME")
    even, odd = tf.split(rows, 2, axis=-1)
    first, second = tf.split(even, 2, axis=-1)  # 4n, 4n + 2
    right = [[0, 0], [0, 0], [0, 1], [0, 0]]
    following = tf.pad(first[:, :, 1:], right, constant_values=x.dtype.min)
    return tf.maximum(tf.maximum(even, odd), tf.concat([second, following], axis=-1))
