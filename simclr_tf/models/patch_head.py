"""PIRL's head for the patches of an image (https://arxiv.org/abs/1912.01991)."""

from __future__ import annotations

import gin
import keras

from simclr_tf.models.heads import check_sizes, dense, pytorch_initializer


@gin.configurable
def patch_projection_head(
    num_layers: int = 1,
    hidden_dim: int | None = None,
    patch_dim: int = 128,
    output_dim: int = 128,
    *,
    input_dim: int,
    patches: int,
) -> keras.Model:
    """Builds g: a projection of each patch, and one of all of them in their order.

    Layers have biases. A patch's layers have ReLU between them, and none after the last one, as in
    the authors' code. Kernels and biases start as in `plain_projection_head`.

    Args:
        num_layers: Layers that each patch passes by itself.
        hidden_dim: Width between them; None for D.
        patch_dim: Width of their last one.
        output_dim: P, the dimension of the projection.
        input_dim: D, the dimension of the representation.
        patches: n, the patches of an image.

    Returns:
        A functional model named "patch_head" from representations [N, n, D] to projections
        [N, P] float32.

    Raises:
        InvalidArgument: If a size is not positive.
    """
    hidden_dim = input_dim if hidden_dim is None else hidden_dim
    check_sizes(num_layers, hidden_dim, output_dim, input_dim)
    check_sizes(num_layers, hidden_dim, patch_dim, input_dim)
    inputs = x = keras.Input((patches, input_dim), name="representations")
    for layer in range(1, num_layers + 1):
        last = layer == num_layers
        units = patch_dim if last else hidden_dim
        x = dense(units, f"patch_{layer}_dense", pytorch_initializer())(x)
        x = x if last else keras.layers.ReLU(name=f"patch_{layer}_relu")(x)
    x = keras.layers.Flatten(name="patches")(x)
    outputs = dense(output_dim, "patches_dense", pytorch_initializer(), dtype="float32")(x)
    return keras.Model(inputs, outputs, name="patch_head")
