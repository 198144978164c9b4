"""`study`: runs and evaluates all cells of a systematic study, and reports them beside the paper's.

A study's recipe is a recipe for a run that also binds `study.axes`: its other bindings, and those
of the command line, are the base of every cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import gin

from simclr_tf import jobs
from simclr_tf.context import Context
from simclr_tf.distribute.strategy import refuse_workers
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import Result, publish
from simclr_tf.gin_types import configurable_of
from simclr_tf.jobs.linear_eval import linear_eval
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.study import commands
from simclr_tf.study.budget import Budget
from simclr_tf.study.cells import Cell, Study, share
from simclr_tf.study.claims import Claims
from simclr_tf.study.processes import Processes
from simclr_tf.study.record import Record
from simclr_tf.study.report import report
from simclr_tf.study.running import Session, failures
from simclr_tf.training.preemption import StopRequest


@dataclasses.dataclass(frozen=True)
class Plan:
    """What this process does of a study.

    Attributes:
      study: the definition.
      cells: this process's share.
      minutes: the time that it may take, or None.
      only_list: whether it prints the commands of the cells instead of running them.
    """

    study: Study
    cells: tuple[Cell, ...]
    minutes: float | None
    only_list: bool


@gin.configurable("study", denylist=["context"])
def planned(
    context: Context,
    *,
    axes: Mapping = {},
    job: Callable = pretraining,
    evaluations: Sequence[Callable[..., Result | None]] = (linear_eval,),
    seeds: Sequence[int] = (0,),
    seed_parameters: Sequence[str] = ("pretrain.seed",),
    symmetric: bool = False,
    measure: str = "linear_eval top1",
    figure: Literal["heat_map", "bars", "lines"] = "bars",
    published: Mapping = {},
    list: bool = False,
    part: tuple[int, int] | None = None,
    minutes: float | None = None,
) -> Plan:
    """Describes a study.

    Args:
      context: the command line's values.
      axes: axis -> label -> bindings, such as
        {'temperature': {'0.1': ['nt_xent.temperature = 0.1']}}, and recipes, which end in .gin. A
        cell is one label of each axis.
      job: trains a cell: @pretrain or @supervised.
      evaluations: the jobs that follow, such as [@watch, @linear_eval]; @watch evaluates the kept
        checkpoints, and needs another one behind it whose result says that the cell is finished.
      seeds: seeds of the runs of each combination of labels.
      seed_parameters: the parameters that a seed sets.
      symmetric: of two axes with the same labels, runs one triangle.
      measure: the compared number: a job and words of a number of its result.
      figure: 'heat_map' of two axes, 'bars' with the spread over seeds, or 'lines'.
      published: the paper's numbers, shares in per cent, by label; nested in the axes' order.
      list: prints the command line of each cell instead, one a line, for other schedulers.
      part: (number from 1, number of parts): the share of this process.
      minutes: no cell is started that would not end in this time.
    """
    study = Study(
        folder=context.model_dir,
        arguments=commands.shared(context.arguments),
        job=_job_name(job),
        evaluations=tuple(map(_job_name, evaluations)),
        axes=axes,
        seeds=tuple(seeds),
        seed_parameters=tuple(seed_parameters),
        symmetric=symmetric,
        measure=measure,
        figure=figure,
        published=published,
    )
    if minutes is not None and not minutes > 0:
        raise RequestError(f"study.minutes must be positive. Received: study.minutes={minutes}.")
    return Plan(study, tuple(share(study.cells(), part)), minutes, list)


def study(context: Context) -> None:
    """Runs the cells, one after another, and reports them."""
    plan = planned(context)
    commands.check(plan.study)
    if plan.only_list:
        for cell in plan.cells:
            print(commands.line(plan.study, cell))
    else:
        _run(plan)


def _run(plan: Plan) -> None:
    refuse_workers()
    _refuse_url(plan.study)
    record = Record(plan.study)
    record.open()
    budget = Budget(plan.minutes)
    with StopRequest() as stop, Processes() as processes:
        session = Session(plan.study, plan.cells, budget=budget, stop=stop, processes=processes)
        left = session.run()
    _report(plan.study, record)
    if left:
        print(
            f"{len(left)} of {len(plan.cells)} cells are left: {budget.plan(left)}. The same "
            "command goes on with them."
        )
    error = failures(record, plan.cells)
    if error:
        raise error


def _report(study: Study, record: Record) -> None:
    """Reports, unless another process of the study does at this moment."""
    claim = Claims(record.status_folder).take("report")
    if claim is not None:
        try:
            publish(report(study), study.folder)
        finally:
            claim.give_back()


def _refuse_url(study: Study) -> None:
    if "://" in study.folder:
        raise RequestError(
            "A study's --model_dir must be a folder of a file system, where a cell is claimed by "
            f"creating a file. Received: {study.folder}. Run the commands that study.list = True "
            "prints, or choose a shared folder."
        )


def _job_name(function: Callable) -> str:
    found = configurable_of(function)
    name = found.selector.rpartition(".")[2] if found else str(function)
    if name not in jobs.MODULES or name.startswith("study"):
        raise RequestError(
            f"study.job and study.evaluations must name jobs, such as @linear_eval. Received: "
            f"@{name}."
        )
    return name
