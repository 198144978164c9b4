"""The networks on top of the encoder: the projection head g(.) and the online linear probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gin
import keras

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import InvalidArgument

MAX_LAYERS, MAX_DIM = 100, 2**20
KINDS = ("none", "linear", "nonlinear")


@gin.configurable
def projection_head(
    kind: str = "nonlinear",
    num_layers: int = 2,
    output_dim: int | None = 128,
    *,
    input_dim: int,
) -> keras.Model:
    """Builds the projection head (SimCLR section 4.2; SimCLRv2 section 2 for three layers).

    A hidden layer is Dense without bias, normalization and ReLU, and keeps the width. The last
    layer is Dense without bias and a normalization with scale only. "none" projects nothing and
    "linear" is the last layer alone; both ignore `num_layers`.

    Args:
        kind: "none", "linear" or "nonlinear".
        num_layers: Layers of the nonlinear head, the last one included: 2 in SimCLR, 3 in v2.
        output_dim: P, the dimension of the projection; None for D, as the paper's table 3 has it.
        input_dim: D, the dimension of the representation.

    Returns:
        A functional model named "projection_head" from representations [N, D] to a dict of
        "projection_0" (the input) to "projection_n" (z, [N, P] float32). The entries between them
        are the hidden layers after their ReLU, in the compute dtype.

    Raises:
        ValueError: If the kind is unknown or a size is not positive.
    """
    if kind not in KINDS:
        raise InvalidArgument(
            f"kind must be one of the known heads. Received: kind={kind!r}. "
            f"Valid: {', '.join(KINDS)}."
        )
    output_dim = input_dim if output_dim is None else output_dim
    if not (1 <= num_layers <= MAX_LAYERS and 1 <= output_dim <= MAX_DIM and input_dim >= 1):
        raise InvalidArgument(
            f"num_layers must be from 1 to {MAX_LAYERS}, output_dim from 1 to {MAX_DIM:,}, and "
            f"input_dim at least 1. Received: num_layers={num_layers}, output_dim={output_dim}, "
            f"input_dim={input_dim}."
        )
    last = {"none": 0, "linear": 1, "nonlinear": num_layers}[kind]
    inputs = x = keras.Input((input_dim,), name="representation")
    # Keras 3.10 cannot build a model of an input alone, which "none" would be without this layer.
    outputs = {"projection_0": keras.layers.Identity(dtype="float32", name="projection_0")(x)}
    for layer in range(1, last + 1):
        name = f"projection_{layer}"
        x = dense(output_dim if layer == last else input_dim, f"{name}_dense", use_bias=False)(x)
        if layer < last:
            x = SyncBatchNormalization(name=f"{name}_bn")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        else:
            x = SyncBatchNormalization(center=False, dtype="float32", name=f"{name}_bn")(x)
        outputs[name] = x
    return keras.Model(inputs, outputs, name="projection_head")


def last_projection(outputs: Mapping[str, Any]) -> Any:
    """Returns z of a projection head's outputs, "projection_0" (h) to "projection_n"."""
    return outputs[f"projection_{len(outputs) - 1}"]


@gin.configurable
def plain_projection_head(
    num_layers: int = 2,
    hidden_dim: int | None = None,
    output_dim: int = 128,
    *,
    input_dim: int,
) -> keras.Model:
    """Builds a projection head without normalization, as MoCo v1 (one layer) and v2 (two) have it.

    Layers have biases, and ReLU between them. Kernels start uniform in 1 / sqrt(inputs), PyTorch's
    initial values, and biases from zero.

    Args:
        num_layers: Layers, the last one included.
        hidden_dim: Width between layers; None for D.
        output_dim: P, the dimension of the projection.
        input_dim: D, the dimension of the representation.

    Returns:
        A model like that of `projection_head`.

    Raises:
        InvalidArgument: If a size is not positive.
    """
    hidden_dim = input_dim if hidden_dim is None else hidden_dim
    check_sizes(num_layers, hidden_dim, output_dim, input_dim)
    inputs = x = keras.Input((input_dim,), name="representation")
    outputs = {"projection_0": keras.layers.Identity(dtype="float32", name="projection_0")(x)}
    for layer in range(1, num_layers + 1):
        name, last = f"projection_{layer}", layer == num_layers
        kwargs = {"dtype": "float32"} if last else {}
        x = dense(
            output_dim if last else hidden_dim, f"{name}_dense", pytorch_initializer(), **kwargs
        )(x)
        x = outputs[name] = x if last else keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(inputs, outputs, name="projection_head")


@gin.configurable
def mlp_projection_head(
    num_layers: int = 2,
    hidden_dim: int = 4096,
    output_dim: int = 256,
    *,
    input_dim: int,
) -> keras.Model:
    """Builds a projection head that normalizes hidden layers alone: BYOL's, or VICReg's expander.

    A hidden layer is Dense, normalization and ReLU, and the last one Dense alone. No layer has a
    bias, which the authors' hidden layers have and normalization takes away. Kernels start as in
    `plain_projection_head`.

    Args:
        num_layers: Layers, the last one included: 2 in BYOL, 3 in VICReg.
        hidden_dim: Width between layers: 4,096 in BYOL, 8,192 in VICReg.
        output_dim: P, the dimension of the projection: 256 in BYOL, 8,192 in VICReg.
        input_dim: D, the dimension of the representation.

    Returns:
        A model like that of `projection_head`.

    Raises:
        InvalidArgument: If a size is not positive.
    """
    check_sizes(num_layers, hidden_dim, output_dim, input_dim)
    inputs = keras.Input((input_dim,), name="representation")
    first = keras.layers.Identity(dtype="float32", name="projection_0")(inputs)
    widths = [*[hidden_dim] * (num_layers - 1), output_dim]
    outputs = {"projection_0": first, **_mlp(inputs, widths, "projection")}
    return keras.Model(inputs, outputs, name="projection_head")


@gin.configurable
def predictor(num_layers: int = 2, hidden_dim: int = 4096, *, input_dim: int) -> keras.Model:
    """Builds the network that predicts another network's projection (BYOL, section 3.1).

    Its layers are like those of `mlp_projection_head`.

    Args:
        num_layers: Layers, the last one included.
        hidden_dim: Width between layers.
        input_dim: P, the dimension of the projection and of the prediction.

    Returns:
        A model named "predictor" from [N, P] to [N, P] float32.

    Raises:
        InvalidArgument: If a size is not positive.
    """
    check_sizes(num_layers, hidden_dim, input_dim, input_dim)
    inputs = keras.Input((input_dim,), name="projection")
    widths = [*[hidden_dim] * (num_layers - 1), input_dim]
    *_, outputs = _mlp(inputs, widths, "prediction").values()
    return keras.Model(inputs, outputs, name="predictor")


def first_layers(head: keras.Model, count: int) -> keras.Model:
    """Returns the head up to "projection_<count>", with the same variables (SimCLRv2, section 2).

    Raises:
        ValueError: If the head has no such layer.
    """
    if not 0 <= count < len(head.output):
        raise InvalidArgument(
            f"The projection head has the layers {', '.join(head.output)}. Received: "
            f"projection_{count}."
        )
    kept = {f"projection_{layer}": head.output[f"projection_{layer}"] for layer in range(count + 1)}
    return keras.Model(head.input, kept, name="projection_head")


def linear_probe(
    num_classes: int, *, input_dim: int, kernel_initializer: Any = None
) -> keras.Model:
    """Builds the linear classifier that evaluates the representation during training.

    Args:
        num_classes: Number of classes, at least 2.
        input_dim: D, the dimension of the representation.
        kernel_initializer: By default normal with a standard deviation of 0.01; fine-tuning uses
            "zeros".

    Returns:
        A functional model named "probe" from representations [N, D] to logits
        [N, num_classes], computed in float32.

    Raises:
        ValueError: If a size is too small for a classifier.
    """
    if num_classes < 2 or input_dim < 1:
        raise InvalidArgument(
            "num_classes must be at least 2 and input_dim at least 1. Received: "
            f"num_classes={num_classes}, input_dim={input_dim}."
        )
    inputs = keras.Input((input_dim,), name="representation")
    logits = dense(num_classes, "probe_dense", kernel_initializer, dtype="float32")(inputs)
    return keras.Model(inputs, logits, name="probe")


def _mlp(x: keras.KerasTensor, widths: list[int], prefix: str) -> dict[str, keras.KerasTensor]:
    """Returns what each layer gives, the last one in float32, by its name: the prefix and "_1"."""
    outputs = {}
    for layer, width in enumerate(widths, 1):
        name, last = f"{prefix}_{layer}", layer == len(widths)
        kwargs = {"dtype": "float32"} if last else {}
        x = dense(width, f"{name}_dense", pytorch_initializer(), use_bias=False, **kwargs)(x)
        if not last:
            x = SyncBatchNormalization(name=f"{name}_bn")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        outputs[name] = x
    return outputs


def pytorch_initializer() -> keras.initializers.Initializer:
    """Returns what draws kernels uniformly in 1 / sqrt(inputs)."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def check_sizes(num_layers: int, hidden_dim: int, output_dim: int, input_dim: int) -> None:
    """Raises InvalidArgument unless a head can have these sizes."""
    sizes = (hidden_dim, output_dim, input_dim)
    if not (1 <= num_layers <= MAX_LAYERS and all(1 <= size <= MAX_DIM for size in sizes)):
        raise InvalidArgument(
            f"num_layers must be from 1 to {MAX_LAYERS}, hidden_dim and output_dim from 1 to "
            f"{MAX_DIM:,}. Received: num_layers={num_layers}, hidden_dim={hidden_dim}, "
            f"output_dim={output_dim}, input_dim={input_dim}."
        )


def dense(units: int, name: str, kernel_initializer: Any = None, **kwargs) -> keras.layers.Dense:
    """Returns a layer whose kernel starts normal by 0.01, as in the reference, if not otherwise."""
    initializer = kernel_initializer or keras.initializers.RandomNormal(stddev=0.01)
    return keras.layers.Dense(units, kernel_initializer=initializer, name=name, **kwargs)
