"""A study and its cells: one run for each label of every axis and each seed."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simclr_tf.errors import RequestError

FIGURES = ("heat_map", "bars", "lines")
Axes = Mapping[str, Mapping[str, Sequence[str]]]
_LONGEST_NAME = 200
_RECIPE = ".gin"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
      labels: one label of each axis, in the axes' order.
      seed: the run's seed.
      recipes: gin files of its labels, read after the study's.
      bindings: what else distinguishes the run from the base recipe.
      name: its folder's name.
    """

    labels: tuple[str, ...]
    seed: int
    recipes: tuple[str, ...]
    bindings: tuple[str, ...]
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A definition that was checked.

    Attributes:
      folder: the study's folder; cells lie below it.
      arguments: the command line's flags that every cell shares.
      job: the job that trains a cell.
      evaluations: the jobs that follow, in this order.
      axes: axis -> label -> bindings and recipes, which end in .gin.
      seeds: seeds of the runs of each combination of labels.
      seed_parameters: the parameters that a seed sets.
      symmetric: whether of two axes with the same labels only one triangle is run.
      measure: words that name the compared number, as `tools/results_table.py` takes them.
      figure: 'heat_map', 'bars' or 'lines'.
      published: label -> ... -> number that the paper printed, nested in the axes' order.
    """

    folder: str
    arguments: tuple[str, ...]
    job: str
    evaluations: tuple[str, ...]
    axes: Axes
    seeds: tuple[int, ...] = (0,)
    seed_parameters: tuple[str, ...] = ("pretrain.seed",)
    symmetric: bool = False
    measure: str
    figure: str = "bars"
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_axes(self.axes)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            _refuse("seeds", "hold at least one seed, each once", self.seeds)
        if self.figure not in FIGURES:
            _refuse("figure", f"be one of {', '.join(FIGURES)}", self.figure)
        if self.figure == "heat_map" and len(self.axes) != 2:
            _refuse("axes", "hold two axes for a heat map", list(self.axes))
        labels = [list(axis) for axis in self.axes.values()]
        if self.symmetric and (len(labels) != 2 or labels[0] != labels[1]):
            _refuse("axes", "hold two axes with equal labels in a symmetric study", labels)
        self._check_published(self.published, labels)
        judged = [job for job in (self.job, *self.evaluations) if job != "watch"]
        if self.measure.split()[:1] not in [[job] for job in judged]:
            _refuse("measure", f"begin with one of {', '.join(judged)}", self.measure)
        names = [cell.name for cell in self.cells()]
        if len(set(names)) < len(names) or max(map(len, names)) > _LONGEST_NAME:
            _refuse("axes", "have labels that make short and different folder names", names[:10])

    def combinations(self) -> list[tuple[str, ...]]:
        """Returns the labels of all runs, without seeds, in the axes' order."""
        found = itertools.product(*self.axes.values())
        if not self.symmetric:
            return list(found)
        place = {label: i for i, label in enumerate(next(iter(self.axes.values())))}
        return [labels for labels in found if place[labels[0]] <= place[labels[1]]]

    def cells(self) -> list[Cell]:
        """Returns all cells, seed by seed, so that a broken study has seen every combination."""
        return [self._cell(labels, seed) for seed in self.seeds for labels in self.combinations()]

    def published_number(self, labels: Sequence[str]) -> float | None:
        """Returns the paper's number for a combination, of a symmetric pair their mean."""
        orders = [labels, labels[::-1]] if self.symmetric else [labels]
        found = [n for n in map(self._published_in_order, orders) if n is not None]
        return sum(found) / len(found) if found else None

    def _published_in_order(self, labels: Sequence[str]) -> float | None:
        found: Any = self.published
        for label in labels:
            found = found.get(label) if isinstance(found, Mapping) else None
        return found

    def _cell(self, labels: tuple[str, ...], seed: int) -> Cell:
        chosen = zip(self.axes.values(), labels, strict=True)
        settings = [setting for axis, label in chosen for setting in axis[label]]
        recipes = [setting for setting in settings if setting.endswith(_RECIPE)]
        bindings = [setting for setting in settings if not setting.endswith(_RECIPE)]
        words = [f"{axis}-{label}" for axis, label in zip(self.axes, labels, strict=True)]
        name = "_".join(_safe(word) for word in (*words, f"seed-{seed}"))
        seeds = [f"{parameter} = {seed}" for parameter in self.seed_parameters]
        return Cell(labels, seed, tuple(recipes), (*bindings, *seeds), name)

    def _check_published(self, numbers: Any, labels: list[list[str]]) -> None:
        """Refuses labels that no axis has: their numbers would be compared with nothing."""
        if not labels:
            if isinstance(numbers, bool) or not isinstance(numbers, (int, float)):
                _refuse("published", "end in a number for each label of the last axis", numbers)
            return
        if not isinstance(numbers, Mapping) or set(numbers) - set(labels[0]):
            _refuse("published", f"be a dict by the labels {labels[0]} there", numbers)
        for inner in numbers.values():
            self._check_published(inner, labels[1:])


def share(cells: Sequence[Cell], part: tuple[int, int] | None) -> list[Cell]:
    """Returns the cells of `part`, (number from 1, number of parts), or all."""
    if part is None:
        return list(cells)
    number, parts = part
    if not 1 <= number <= parts:
        _refuse("part", "be (number from 1, number of parts)", part)
    return list(cells[number - 1 :: parts])


def _check_axes(axes: Axes) -> None:
    wanted = "be {axis: {label: [bindings, recipes]}}, such as {'temperature': {'0.1': "
    wanted += "['nt_xent.temperature = 0.1']}}"
    if not axes or not all(isinstance(name, str) for name in axes):
        _refuse("axes", wanted, axes)
    for labels in axes.values():
        if not isinstance(labels, Mapping) or not labels:
            _refuse("axes", wanted, axes)
        for label, settings in labels.items():
            texts = isinstance(settings, (list, tuple)) and [label, *settings]
            if not texts or not all(isinstance(text, str) for text in texts):
                _refuse("axes", wanted, axes)


def _safe(text: str) -> str:
    """Returns text as a part of a file's name that no shell and no program reads as a pattern."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-")


def _refuse(parameter: str, rule: str, received: object) -> None:
    raise RequestError(f"study.{parameter} must {rule}. Received: study.{parameter}={received!r}.")
