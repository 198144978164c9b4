"""Reads the files that a run has left in its folder, as far as they exist."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from simclr_tf.errors import RequestError
from simclr_tf.report import files
from simclr_tf.report.curves import Curve, gather

_SIGNS = ("config.gin", "metrics.jsonl", "run.json", "checkpoints", "results")


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of one run's folder.

    Attributes:
      name: short, and unique in the report.
      folder: its path.
      curves: the numbers of metrics.jsonl.
      last_report: when metrics.jsonl was last written, in UTC.
      record: run.json; empty in runs from before it was written.
      warnings: content of warnings.jsonl, or None if there is no such file.
      recipe: the text of config.gin.
      results: job -> results/<job>.json.
      watched: the numbers of results/watch.jsonl, by job and name.
      plan_settings: the plan's numbers in the newest checkpoint.
    """

    name: str
    folder: pathlib.Path
    curves: dict[str, Curve]
    last_report: datetime.datetime | None
    record: dict[str, Any]
    warnings: list[dict[str, Any]] | None
    recipe: str
    results: dict[str, dict[str, Any]]
    watched: dict[str, Curve]
    plan_settings: dict[str, Any]

    @functools.cached_property
    def step(self) -> int:
        """Step of the last report, or 0."""
        return int(max((curve.steps[-1] for curve in self.curves.values()), default=0))

    @functools.cached_property
    def total_steps(self) -> int | None:
        """The run's length, if run.json or a checkpoint holds it."""
        for source in (self.record, self.plan_settings):
            total = files.number(source.get("total_steps"))
            if total is not None and 0 < total < 1e15:
                return int(total)
        return None

    @functools.cached_property
    def epochs_per_step(self) -> float | None:
        """Epochs per step, by the last report."""
        epochs = self.curves.get("epoch")
        if epochs is None or not epochs.steps[-1] > 0 or not epochs.values[-1] > 0:
            return None
        found = epochs.values[-1] / epochs.steps[-1]
        return found if math.isfinite(found) else None

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The starts recorded in run.json, first to last."""
        return files.objects(self.record.get("starts"))


def read_runs(folders: Sequence[pathlib.Path]) -> list[Run]:
    """Reads the folders of runs.

    Raises:
      RequestError: one of them is not a run's folder.
    """
    for folder in folders:
        if not any((folder / sign).exists() for sign in _SIGNS):
            raise RequestError(
                "Each folder must be a run's --model_dir on this machine, with at least one of "
                f"{', '.join(_SIGNS)}. Received: {folder}, which "
                + ("has none." if folder.is_dir() else "is no folder.")
            )
    try:
        return [_read(*both) for both in zip(folders, _names(folders), strict=True)]
    except OSError as error:
        raise RequestError(f"A run's files must be readable. Received: {error}.") from error


def _read(folder: pathlib.Path, name: str) -> Run:
    metrics, warned = folder / "metrics.jsonl", folder / "warnings.jsonl"
    return Run(
        name=name,
        folder=folder,
        curves=gather(files.read_lines(metrics)),
        last_report=_time(metrics),
        record=files.read_object(folder / "run.json"),
        warnings=list(files.read_lines(warned)) if warned.is_file() else None,
        recipe=files.read_text(folder / "config.gin") or "",
        results={p.stem: files.read_object(p) for p in sorted(folder.glob("results/*.json"))},
        watched=_watched(folder / "results" / "watch.jsonl"),
        plan_settings=_plan_settings(folder),
    )


def _time(path: pathlib.Path) -> datetime.datetime | None:
    """Returns when a file was last written."""
    if not path.is_file():
        return None
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)


def _watched(path: pathlib.Path) -> dict[str, Curve]:
    return gather(
        {"step": line.get("step")} | dict(files.flat(line.get("numbers"), f"{line.get('job')} "))
        for line in files.read_lines(path)
    )


def _plan_settings(folder: pathlib.Path) -> dict[str, Any]:
    for manifest in sorted(folder.glob("checkpoints/step_*/manifest.json"), reverse=True):
        found = files.mapping(files.read_object(manifest).get("settings"))
        if found:
            return found
    return {}


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """Returns the last parts of the paths, as many as distinguish them."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]
