"""Parameters of recipes that have another name by now."""

from __future__ import annotations

# The name in recipes and checkpoints of older versions -> today's.
RENAMED = {
    "pretrain.augmentation": "simclr.augmentation",
    "pretrain.loss": "simclr.loss",
    "pretrain.projection_head": "simclr.projection_head",
}


def name_of_today(name: str) -> str:
    """The name of a parameter in this version, 'scope/function.parameter' as gin writes it."""
    scope, slash, parameter = name.rpartition("/")
    return f"{scope}{slash}{RENAMED.get(parameter, parameter)}"
