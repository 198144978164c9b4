"""The networks of a run by name, and the roles of their variables."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.models.layer_norm import LayerNorm

ROLES = ("kernel", "bias", "batch_norm", "probe")

_NORMALIZATIONS = (
    SyncBatchNormalization,
    LayerNorm,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


class Networks(Mapping[str, keras.Model]):
    """Models by name, in the order in which they are built, saved and counted.

    Args:
        models: Name -> model. The name also names the model's group in a checkpoint.
        classifiers: Names of the models that are linear classifiers on a representation: their
            variables are neither decayed nor adapted by LARS, as in google-research/simclr.

    Raises:
        ValueError: If a classifier is not among the models.
    """

    def __init__(self, models: Mapping[str, keras.Model], classifiers: tuple[str, ...] = ()):
        unknown = set(classifiers) - models.keys()
        if unknown:
            raise ValueError(
                f"classifiers must be names of models. Received: {', '.join(sorted(unknown))}; "
                f"the models are {', '.join(models)}."
            )
        self._models = dict(models)
        self.classifiers = tuple(classifiers)

    def __getitem__(self, name: str) -> keras.Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __or__(self, other: Networks) -> Networks:
        """Joins these networks with those of `other`, in this order.

        Raises:
            ValueError: If both use the same name.
        """
        if twice := self.keys() & other.keys():
            raise ValueError(
                "Networks that are joined must have names of their own. Received twice: "
                f"{', '.join(sorted(twice))}. Rename one, or leave it out."
            )
        return Networks({**self, **other}, self.classifiers + other.classifiers)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, moving statistics included, network after network."""
        return [v for model in self.values() for v in model.variables]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that an optimizer is built with, network after network."""
        return [v for model in self.values() for v in model.trainable_variables]


def variable_roles(networks: Networks | keras.Model) -> dict[str, str]:
    """Returns the role of each variable, from the layer that owns it.

    The role decides about weight decay and trust ratio (LARS, SimCLR section 2.2), so it must not
    depend on the variables' names.

    Args:
        networks: The networks, or a single model (whose variables are then never "probe").

    Returns:
        Variable path -> role, for trainable variables and moving statistics alike. "probe" is
        every variable of a classifier, "batch_norm" every one of a normalization layer, "bias" a
        layer's bias or another vector, such as a factor of each channel, and "kernel" everything
        else.

    Raises:
        ValueError: If two variables have the same path.
    """
    if isinstance(networks, keras.Model):
        networks = Networks({"": networks})
    roles: dict[str, str] = {}
    for name, model in networks.items():
        for layer in _leaf_layers(model):
            for variable in layer.weights:
                if variable.path in roles:
                    raise ValueError(
                        "Every variable needs a path of its own: name the layers differently. "
                        f"Received twice: {variable.path}."
                    )
                role = _role_in_layer(layer, variable)
                roles[variable.path] = "probe" if name in networks.classifiers else role
    return roles


def fingerprint(models: Iterable[keras.Model]) -> str:
    """Returns the SHA-256 of the variables of all models, in order."""
    digest = hashlib.sha256()
    for model in models:
        for variable in model.variables:
            digest.update(variable.path.encode())
            digest.update(np.ascontiguousarray(variable.numpy()))
    return digest.hexdigest()


def copy_values(source: Networks, target: Networks) -> None:
    """Copies the values of `source`'s variables to the variables of the same path in `target`."""
    values = {v.path: v for v in source.variables}
    for variable in target.variables:
        variable.assign(values[variable.path].numpy())


def representation_dim(encoder: keras.Model) -> int:
    """Returns D, the `input_dim` of the heads on this encoder."""
    return encoder.output["final_avg_pool"].shape[-1]


def count_parameters(model: Networks | keras.Model) -> int:
    """Counts the trainable scalars (moving statistics are not parameters)."""
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def _role_in_layer(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    if isinstance(layer, _NORMALIZATIONS):
        return "batch_norm"
    is_bias = variable is getattr(layer, "bias", None) or len(variable.shape) < 2
    return "bias" if is_bias else "kernel"


def _leaf_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if not isinstance(layer, keras.Model):
        return [layer]
    return [leaf for inner in layer.layers for leaf in _leaf_layers(inner)]
