"""How many floating-point operations a model asks for, whatever a compiler makes of it."""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf.models.simclr import SimCLR, forward


def training_flop(simclr: SimCLR, images: tf.TensorSpec) -> int:
    """Operations of forward and backward pass, three times those of the forward pass.

    Only convolutions and matrix products count, a multiplication and an addition as two.

    Args:
      simclr: the networks.
      images: [N, H, W, 3], static.
    """
    run = tf.function(lambda x: forward(simclr, x, training=False), autograph=False)
    total = 0
    for op in run.get_concrete_function(images).graph.get_operations():
        if op.type == "Conv2D":
            height, width, channels, _ = op.inputs[1].shape
            total += 2 * math.prod(op.outputs[0].shape) * height * width * channels
        elif op.type == "MatMul":
            total += 2 * math.prod(op.outputs[0].shape) * op.inputs[1].shape[0]
    return 3 * total
