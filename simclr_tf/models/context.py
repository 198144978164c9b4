"""The networks of CPC v2 on a grid of patches: context, predictions, targets.

Hénaff et al., https://arxiv.org/abs/1905.09272, appendix, after its pseudo-code.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import keras

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.heads import MAX_DIM, MAX_LAYERS

# Quarter turns, counter-clockwise, after which a direction leads down.
QUARTERS = {"down": 0, "left": 1, "up": 2, "right": 3}


@gin.configurable
def context_network(
    blocks: int = 5,
    hidden_dim: int = 256,
    target_dim: int = 64,
    *,
    directions: Sequence[str],
    num_offsets: int,
    side: int,
    input_dim: int,
) -> keras.Model:
    """Builds what predicts the vectors of patches from the patches before them.

    The context of a patch sees the rows up to its own: a row further up in each block, and a column
    further to both sides. For another direction the grid is turned until that leads down, and the
    contexts are turned back. All directions share the context network; each has predictions of its
    own. Predictions and targets are linear.

    Args:
        blocks: Residual blocks.
        hidden_dim: Channels between the convolutions of a block.
        target_dim: T, the dimension of predictions and targets.
        directions: Names among `QUARTERS`, d of them.
        num_offsets: K, how many patches are predicted in each direction.
        side: g, patches in a row.
        input_dim: D, the dimension of a patch's vector.

    Returns:
        A functional model named "context" from grids [N, g, g, D] to a dict of "targets"
        [N, g, g, T] and "predictions" [N, g, g, d, K*T], at the place of their context, both
        float32.

    Raises:
        InvalidArgument: If a size is out of range.
    """
    if not (1 <= blocks <= MAX_LAYERS and all(1 <= d <= MAX_DIM for d in (hidden_dim, target_dim))):
        raise InvalidArgument(
            f"context_network needs blocks from 1 to {MAX_LAYERS}, hidden_dim and target_dim from "
            f"1 to {MAX_DIM:,}. Received: blocks={blocks}, hidden_dim={hidden_dim}, "
            f"target_dim={target_dim}."
        )
    grid = keras.Input((side, side, input_dim), name="patch_grid")
    turned = [_turned(grid, QUARTERS[direction]) for direction in directions]
    x = keras.ops.concatenate(turned, axis=0)
    for block in range(1, blocks + 1):
        x = _block(x, hidden_dim, f"context_block{block}")
    contexts = keras.ops.split(keras.layers.ReLU(name="context_relu")(x), len(turned), axis=0)
    predictions = [
        _linear(num_offsets * target_dim, f"predict_{direction}")(
            _turned(context, -QUARTERS[direction] % 4)
        )
        for direction, context in zip(directions, contexts, strict=True)
    ]
    outputs = {
        "targets": _linear(target_dim, "target")(grid),
        "predictions": keras.ops.stack(predictions, axis=3),
    }
    return keras.Model(grid, outputs, name="context")


def _block(x, hidden_dim: int, name: str):
    """A residual block whose outputs see their own row and the one above."""
    y = keras.layers.Conv2D(hidden_dim, 1, activation="relu", name=f"{name}_conv1")(x)
    y = keras.layers.Conv2D(hidden_dim, (1, 3), padding="same", name=f"{name}_conv2")(y)
    y = keras.layers.ZeroPadding2D(((1, 0), (0, 0)), name=f"{name}_pad")(y)
    y = keras.layers.Conv2D(hidden_dim, (2, 1), activation="relu", name=f"{name}_conv3")(y)
    y = keras.layers.Conv2D(x.shape[-1], 1, name=f"{name}_conv4")(y)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _turned(x, quarters: int):
    """Turns grids [N, g, g, C] by quarters, counter-clockwise."""
    if quarters == 2:
        return keras.ops.flip(keras.ops.flip(x, axis=1), axis=2)
    if quarters:
        return keras.ops.flip(keras.ops.transpose(x, (0, 2, 1, 3)), axis=1 if quarters == 1 else 2)
    return x


def _linear(units: int, name: str) -> keras.layers.Dense:
    return keras.layers.Dense(units, dtype="float32", name=name)
