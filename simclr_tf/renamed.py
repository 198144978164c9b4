"""Parameters of recipes that were renamed."""

from __future__ import annotations

# Name in recipes and checkpoints of older versions -> current name.
RENAMED = {
    "pretrain.augmentation": "simclr.augmentation",
    "pretrain.loss": "simclr.loss",
    "pretrain.projection_head": "simclr.projection_head",
}


def name_of_today(name: str) -> str:
    """Returns a parameter's name in this version, 'scope/function.parameter' as in gin."""
    scope, slash, parameter = name.rpartition("/")
    return f"{scope}{slash}{RENAMED.get(parameter, parameter)}"
