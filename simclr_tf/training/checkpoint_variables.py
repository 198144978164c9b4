"""The contents of a checkpoint: shape and dtype of each variable, by group and path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from simclr_tf.errors import RequestError
from simclr_tf.training.host_copy import Groups

Description = dict[str, dict[str, list[Any]]]


def compare_variables(saved: Description, groups: Groups, where: str) -> None:
    """Raises RequestError, naming the differences, unless `saved` has exactly these groups."""
    if text := differences(saved, groups):
        raise RequestError(
            f"The checkpoint in {where} must be of the same architecture. It differs from this "
            f"recipe's:\n{text}\nUse the recipe that wrote it, or another --model_dir."
        )


def differences(saved: Description, groups: Groups) -> str:
    """Returns the first differences between `saved` and these groups, one a line; '' for none."""
    wanted = describe_groups(groups)
    lines = []
    for group, variables in wanted.items():
        there = saved.get(group, {})
        lines += [f"  {group}: no {p} in the checkpoint" for p in variables if p not in there]
        lines += [f"  {group}: {p} only in the checkpoint" for p in there if p not in variables]
        lines += [
            f"  {group}: {p} is {there[p][0]} in the checkpoint, {variables[p][0]} here"
            for p in variables
            if p in there and there[p] != variables[p]
        ]
    return "\n".join(lines[:8]) + (f"\n  and {len(lines) - 8} more" if len(lines) > 8 else "")


def describe_groups(groups: Mapping[str, Mapping[str, Any]]) -> Description:
    """Returns shape and dtype of every variable or array: group -> path -> [shape, dtype]."""
    return {
        name: {
            path: [list(v.shape), keras.backend.standardize_dtype(v.dtype)]
            for path, v in group.items()
        }
        for name, group in groups.items()
    }
