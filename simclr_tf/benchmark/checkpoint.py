"""The time that a save keeps the loop waiting: copied and written later, or written at once."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf.training.checkpoints import Checkpoints
from simclr_tf.training.host_copy import Groups, are_finite
from simclr_tf.training.run import Run

WRITTEN, COPIED, WHOLE, UPDATE, FIRST_UPDATE = (
    "written before the loop goes on",
    "copied before the loop goes on",
    "until the copy is written",
    "an update of all variables",
    "the first update after a copy",
)
# The baseline of each row.
_BASELINES = {
    WRITTEN: WRITTEN,
    COPIED: WRITTEN,
    WHOLE: WRITTEN,
    UPDATE: UPDATE,
    FIRST_UPDATE: UPDATE,
}


def measure(run: Run, rounds: int) -> str:
    """Times saves of the networks that the recipe trains, in a temporary folder.

    The baseline checks that the weights are finite, and lets TensorFlow write the variables. Both
    take turns in every round, after one that does not count. An update adds zeros: on a CPU, the
    first update after a copy in memory pays for the copy.

    Returns:
      A table of seconds, and of their ratio to the baseline of the same round.
    """
    groups = run.groups()
    turns = [_turn(groups) for _ in range(rounds + 1)][1:]
    size = sum(v.value.numpy().nbytes for group in groups.values() for v in group.values())
    return f"{size / 2**30:.2f} GiB of variables\n\n{_table(turns)}"


def _turn(groups: Groups) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        written = _timed(_write, groups, os.path.join(folder, "before"))
        update = _timed(_update, groups)
        checkpoints = Checkpoints(folder, groups, {})
        start = time.perf_counter()
        copied = _timed(_copy, checkpoints)
        checkpoints.wait()
        whole = time.perf_counter() - start
        values = checkpoints.copy()
        first_update = _timed(_update, groups)
        del values
    return {
        WRITTEN: written,
        COPIED: copied,
        WHOLE: whole,
        UPDATE: update,
        FIRST_UPDATE: first_update,
    }


def _timed(work: Callable[..., None], *args) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def _write(groups: Groups, prefix: str) -> None:
    networks = [group for name, group in groups.items() if name != "optimizer"]
    assert all(np.isfinite(v.numpy()).all() for group in networks for v in group.values())
    values = {name: {p: v.value for p, v in group.items()} for name, group in groups.items()}
    tf.train.Checkpoint(**values).write(prefix)


def _copy(checkpoints: Checkpoints) -> None:
    values = checkpoints.copy()
    assert all(are_finite(group) for name, group in values.items() if name != "optimizer")
    checkpoints.begin(0, values)


def _update(groups: Groups) -> None:
    for variable in (v.value for group in groups.values() for v in group.values()):
        variable.assign_add(tf.zeros(variable.shape, variable.dtype))


def _table(turns: list[dict[str, float]]) -> str:
    lines = ["| | seconds | ratio |", "| --- | ---: | ---: |"]
    for name, baseline in _BASELINES.items():
        took = [turn[name] for turn in turns]
        ratios = [turn[name] / turn[baseline] for turn in turns]
        lines.append(
            f"| {name} | {statistics.median(took):.3f} ({min(took):.3f} to {max(took):.3f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)
