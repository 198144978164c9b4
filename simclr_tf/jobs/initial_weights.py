"""Weights that a new pretraining run starts from: those of a run, a SavedModel, or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.export.weights import PretrainedWeights, find_weights
from simclr_tf.methods.base import Method
from simclr_tf.models.networks import Networks, copy_values, fingerprint
from simclr_tf.names import shown
from simclr_tf.training.checkpoint_variables import PROBE_GROUP, differences
from simclr_tf.training.checkpoints import named_groups
from simclr_tf.training.host_copy import are_finite, copy_to_host

_SETTING = "pretrain.initial_weights"
# Groups of a checkpoint that always start fresh.
_OF_EACH_RUN = ("probe", PROBE_GROUP, "optimizer", "loss_scale", "method")


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Where the networks of a new run take their values from.

    A network that is not there keeps its initial values. One that is there must fit in every
    variable, unless `parts` leaves it out. The online probe, the optimizer and a method's state
    belong to the data and the length of a run, and always start fresh.

    Attributes:
      path: a run's folder, one of its checkpoints, a SavedModel of this project, or a ResNet in
        torchvision's format (`.safetensors`).
      parts: names of the networks to fill; empty for all that are there.
    """

    path: str
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str, parts: Sequence[str]) -> InitialWeights | None:
        """Returns None for the path ''.

        Raises:
          RequestError: there are parts without a path.
        """
        if parts and not path:
            raise RequestError(
                f"pretrain.initial_parts must come with {_SETTING}. Received: {tuple(parts)} alone."
            )
        return cls(path, tuple(parts)) if path else None

    def fill(self, method: Method, watching: Sequence[str], is_new: bool) -> dict[str, str]:
        """Fills the networks of a new run, and returns the plan's lines about it.

        A follower that equals a network, and is not there itself, equals it again afterwards.

        Args:
          method: what is trained.
          watching: names of networks that watch it, such as the online probe.
          is_new: whether the run has no checkpoint yet; otherwise nothing is read.

        Raises:
          RequestError: there are no such weights, no part of them belongs to the method, or one
            does not fit.
        """
        if not is_new:
            return {"initial weights": f"{shown(self.path)}, read when the run began"}
        weights = find_weights(self.path, setting=_SETTING)
        networks = method.networks | method.followers
        names = self._chosen(networks, weights)
        filled = {name: networks[name] for name in names}
        _check_fit(weights, filled)
        copies = _copies(method, names)
        weights.restore(filled)
        _check_finite(weights, filled)
        for follower, network in copies.items():
            copy_values(Networks({"": networks[network]}), Networks({"": networks[follower]}))
        lines = _lines(weights, networks, names, copies)
        fresh = [*watching, *(["state of the method"] if method.state else []), "optimizer"]
        lines["  left fresh"] = ", ".join([*_absent(weights, networks, names, copies), *fresh])
        for name, text in lines.items():
            logging.info("%s: %s", name.strip(), text)
        return lines

    def _chosen(self, networks: Networks, weights: PretrainedWeights) -> list[str]:
        """Returns the names of the networks to fill."""
        there = [name for name in networks if name in weights.groups]
        if unknown := [name for name in self.parts if name not in there]:
            raise RequestError(
                f"pretrain.initial_parts must name networks that both {weights.path} and this run "
                f"have: {', '.join(there) or 'there are none'}. Received: {', '.join(unknown)}."
            )
        if not there:
            raise RequestError(
                f"{_SETTING} must hold a network of this run: {', '.join(networks)}. Received: "
                f"{weights.path}, which has {', '.join(weights.groups)}."
            )
        return [name for name in there if name in (self.parts or there)]


def _check_fit(weights: PretrainedWeights, networks: dict[str, keras.Model]) -> None:
    saved = weights.describe()
    texts = {n: differences(saved, named_groups({n: model})) for n, model in networks.items()}
    if not any(texts.values()):
        return
    fitting = tuple(name for name, text in texts.items() if not text)
    advice = f", or take only what fits: pretrain.initial_parts = {fitting}" if fitting else ""
    raise RequestError(
        f"{_SETTING} must fit this recipe's networks in every variable. Received: {weights.path}, "
        "which differs:\n" + "\n".join(filter(None, texts.values())) + "\nBind the architecture "
        f"that they were trained with{advice}. Nothing was changed."
    )


def _check_finite(weights: PretrainedWeights, networks: dict[str, keras.Model]) -> None:
    for name, values in copy_to_host(named_groups(networks)).items():
        if not are_finite(values):
            raise RequestError(
                f"{_SETTING} must hold finite numbers. Received: {weights.path}, whose {name} has "
                "others. Choose an earlier checkpoint."
            )


def _copies(method: Method, loaded: Sequence[str]) -> dict[str, str]:
    """Returns followers that are not loaded -> the loaded network whose values they hold."""
    origins = {fingerprint([method.networks[n]]): n for n in method.networks if n in loaded}
    found = {name: fingerprint([model]) for name, model in method.followers.items()}
    return {n: origins[f] for n, f in found.items() if n not in loaded and f in origins}


def _lines(
    weights: PretrainedWeights, networks: Networks, loaded: Sequence[str], copies: dict[str, str]
) -> dict[str, str]:
    step = "" if weights.step is None else f", step {weights.step:,}"
    taken = [f"{name} ({len(networks[name].variables)} variables)" for name in loaded]
    taken += [f"{follower} (equal to {network})" for follower, network in copies.items()]
    unused = [name for name in weights.groups if name not in (*loaded, *_OF_EACH_RUN)]
    return {
        "initial weights": f"{shown(weights.path)}{step}",
        "  loaded": ", ".join(taken),
        **({"  not used": ", ".join(unused)} if unused else {}),
    }


def _absent(
    weights: PretrainedWeights, networks: Networks, loaded: Sequence[str], copies: dict[str, str]
) -> list[str]:
    """Returns the networks that keep their initial values, each with the reason."""
    reasons = {True: "not asked for", False: "not there"}
    return [
        f"{name} ({reasons[name in weights.groups]})"
        for name in networks
        if name not in loaded and name not in copies
    ]
