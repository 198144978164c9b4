"""The contents of a checkpoint: shape and dtype of each variable, by group and path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from simclr_tf.errors import RequestError
from simclr_tf.training.host_copy import Groups

Description = dict[str, dict[str, list[Any]]]

# What the online probe's rule remembers.
PROBE_GROUP = "probe_optimizer"
OLDER = (
    "The checkpoint is of an older version, whose online probe learned by the encoder's optimizer: "
    "the probe begins with its initial values again, and everything else resumes unchanged."
)


def compare_variables(saved: Description, groups: Groups, where: str) -> None:
    """Raises RequestError, naming the differences, unless `saved` has exactly these groups."""
    if text := differences(saved, groups):
        raise RequestError(
            f"The checkpoint in {where} must be of the same architecture. It differs from this "
            f"recipe's:\n{text}\nUse the recipe that wrote it, or another --model_dir."
        )


def differences(saved: Description, groups: Groups) -> str:
    """Returns the first differences between `saved` and these groups, one a line; '' for none."""
    saved, groups = _comparable(saved, groups)
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


def is_older(saved: Description, groups: Groups) -> bool:
    """Returns whether it was the encoder's optimizer that updated the online probe of `saved`."""
    return PROBE_GROUP in groups and PROBE_GROUP not in saved


def restorable(saved: Description, groups: Groups) -> Groups:
    """Returns the groups that a checkpoint fills: all, or of an older one all but the probe's."""
    return _comparable(saved, groups)[1]


def _comparable(saved: Description, groups: Groups) -> tuple[Description, Groups]:
    """Leaves out, of an older checkpoint, the probe and its momentum."""
    if not is_older(saved, groups):
        return saved, groups
    optimizer = saved.get("optimizer", {})
    kept = {path: shape for path, shape in optimizer.items() if "probe_dense" not in path}
    without = {name: g for name, g in groups.items() if name not in (PROBE_GROUP, "probe")}
    return {**saved, "optimizer": kept}, without


def describe_groups(groups: Mapping[str, Mapping[str, Any]]) -> Description:
    """Returns shape and dtype of every variable or array: group -> path -> [shape, dtype]."""
    return {
        name: {
            path: [list(v.shape), keras.backend.standardize_dtype(v.dtype)]
            for path, v in group.items()
        }
        for name, group in groups.items()
    }
