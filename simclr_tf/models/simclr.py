"""SimCLR: encoder, projection head and online probe; one forward pass, and who is who."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import keras
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization

ROLES = ("kernel", "bias", "batch_norm", "probe")

_NORMALIZATIONS = (
    SyncBatchNormalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


@dataclasses.dataclass(frozen=True)
class SimCLR:
    """The networks that are trained together.

    Attributes:
        encoder: Images [N, H, W, 3] to a dict with "final_avg_pool" [N, D].
        projection_head: Representations [N, D] to a dict "projection_0" ... "projection_n".
        probe: Representations [N, D] to logits [N, classes], or None without labels.
    """

    encoder: keras.Model
    projection_head: keras.Model
    probe: keras.Model | None = None

    def groups(self) -> dict[str, keras.Model]:
        """The parts that exist, by name."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, moving statistics included, part after part."""
        return [v for part in self.groups().values() for v in part.variables]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What an optimizer is built with, part after part."""
        return [v for part in self.groups().values() for v in part.trainable_variables]


class Outputs(NamedTuple):
    """What `forward` returns, row for row as the images came in.

    Attributes:
        representation: h, [V*B, D] float32.
        projection: z, [V*B, P] float32.
        probe_logits: [V*B, classes] float32, or None without a probe.
    """

    representation: tf.Tensor
    projection: tf.Tensor
    probe_logits: tf.Tensor | None


def forward(simclr: SimCLR, images: tf.Tensor, training: bool) -> Outputs:
    """Runs all views through all parts at once.

    One pass for both views, so that batch normalization cannot tell them apart. The probe sees the
    representation behind a stop_gradient: it watches and does not teach.

    Args:
        simclr: The networks.
        images: [V*B, H, W, 3] in [0, 1], float32: view 1 of all examples, then view 2.
        training: Whether batch normalization uses, and records, the statistics of the batch.
    """
    representation = simclr.encoder(images, training=training)["final_avg_pool"]
    projections = simclr.projection_head(representation, training=training)
    projection = projections[f"projection_{len(projections) - 1}"]
    probe_logits = None
    if simclr.probe is not None:
        probe_logits = simclr.probe(tf.stop_gradient(representation), training=training)
    return Outputs(representation, projection, probe_logits)


def variable_roles(simclr_or_model: SimCLR | keras.Model) -> dict[str, str]:
    """Tells what each variable is, from the layer that owns it.

    The role decides about weight decay and trust ratio (LARS, SimCLR section 2.2), so
    it must not depend on how variables happen to be named.

    Args:
        simclr_or_model: The networks, or one model alone (whose variables are then never "probe").

    Returns:
        Variable path to role, for trainable variables and moving statistics alike. "probe" is
        every variable of the probe; "batch_norm" all of a normalization layer, "bias" a layer's
        bias and "kernel" everything else.

    Raises:
        ValueError: If two variables have the same path.
    """
    if isinstance(simclr_or_model, SimCLR):
        parts = simclr_or_model.groups()
    else:
        parts = {"": simclr_or_model}
    roles: dict[str, str] = {}
    for name, part in parts.items():
        for layer in _leaf_layers(part):
            for variable in layer.weights:
                if variable.path in roles:
                    raise ValueError(
                        "Every variable needs a path of its own: name the layers differently. "
                        f"Received twice: {variable.path}."
                    )
                role = _role_in_layer(layer, variable)
                roles[variable.path] = "probe" if name == "probe" else role
    return roles


def representation_dim(encoder: keras.Model) -> int:
    """D, the `input_dim` of the heads that stand on this encoder."""
    return encoder.output["final_avg_pool"].shape[-1]


def count_parameters(model: SimCLR | keras.Model) -> int:
    """Number of trainable scalars (moving statistics are not parameters)."""
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def _role_in_layer(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    if isinstance(layer, _NORMALIZATIONS):
        return "batch_norm"
    return "bias" if variable is getattr(layer, "bias", None) else "kernel"


def _leaf_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if not isinstance(layer, keras.Model):
        return [layer]
    return [leaf for inner in layer.layers for leaf in _leaf_layers(inner)]
