"""Counts the floating-point operations that a method needs, independent of any compiler."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from simclr_tf.methods.base import Method, Tensors


def training_flop(method: Method, images: int) -> int:
    """Counts operations of forward and backward pass, as three times the forward pass.

    What has no gradient, as a follower's pass, counts once. Only convolutions and matrix products
    count, a multiplication and an addition as two. The online probe is left out.

    Args:
      method: the method whose `embed` and `targets` are counted.
      images: G, such as the method can take; its views of each image are counted.
    """
    embed = _forward_flop(lambda batch: method.embed(batch, training=False), method, images)
    return 3 * embed + _forward_flop(method.targets, method, images)


def _forward_flop(function: Callable[[Tensors], object], method: Method, images: int) -> int:
    views = {
        group.name: tf.TensorSpec([group.count * images, group.size, group.size, 3])
        for group in method.views
    }
    numbers = {name: tf.TensorSpec([images], tf.int32) for name in ("labels", "index")}
    run = tf.function(function, autograph=False)
    total = 0
    for op in run.get_concrete_function(views | numbers).graph.get_operations():
        if op.type == "Conv2D":
            height, width, channels, _ = op.inputs[1].shape
            total += 2 * math.prod(op.outputs[0].shape) * height * width * channels
        elif op.type == "DepthwiseConv2dNative":
            height, width, _, _ = op.inputs[1].shape
            total += 2 * math.prod(op.outputs[0].shape) * height * width
        elif op.type == "MatMul":
            total += 2 * math.prod(op.outputs[0].shape) * op.inputs[1].shape[0]
    return total
