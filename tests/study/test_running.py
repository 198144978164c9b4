"""If this breaks, cells are run twice, lost, or counted as finished when they are not."""

import json
import os
import pathlib
import threading
import types

import pytest

from simclr_tf.errors import PreemptedError, RequestError
from simclr_tf.study.budget import Budget, Forecast
from simclr_tf.study.claims import Claims
from simclr_tf.study.record import Record
from simclr_tf.study.running import Session, failures
from tests.study.conftest import make_study, write_result


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Runs:
    """Stands in for the processes: notes each command, and leaves the result of an evaluation."""

    def __init__(self, study, clock=None, codes=()):
        self.study, self.clock, self.codes = study, clock, dict(codes)
        self.commands: list[tuple[str, str]] = []

    def run(self, arguments, *, log, claim, keep):
        flags = dict(a.removeprefix("--").split("=", 1) for a in arguments)
        name, job = pathlib.Path(flags["model_dir"]).name, flags["job"]
        assert claim.exists() and keep()
        self.commands.append((name, job))
        if self.clock:
            self.clock.now += 30
        code = self.codes.get((name, job), 0)
        if code:
            log.write_text("before\nerror: It must be so. Received: this.\nMore.\n")
        elif job != "pretrain":
            cell = next(c for c in self.study.cells() if c.name == name)
            write_result(self.study, cell, 0.5, job)
        return code


def session(study, runs, minutes=None, clock=None, stop=False, cells=None):
    record = Record(study)
    record.open()
    clock = {"clock": clock} if clock else {}
    return Session(
        study,
        cells or study.cells(),
        budget=Budget(minutes, **clock),
        stop=types.SimpleNamespace(requested=stop),
        processes=runs,
    )


def test_every_cell_is_trained_and_evaluated_once(study):
    runs = Runs(study)
    assert session(study, runs).run() == []
    wanted = [(c.name, job) for c in study.cells() for job in ("pretrain", "linear_eval")]
    assert runs.commands == wanted
    assert session(study, runs).run() == [] and runs.commands == wanted  # and not once more
    assert [p.name for p in Record(study).status_folder.glob("*.1")] == []


def test_a_cell_that_was_run_by_its_plain_command_is_kept(study):
    first, *others = study.cells()
    write_result(study, first, 0.4)
    runs = Runs(study)
    session(study, runs).run()
    assert {name for name, _ in runs.commands} == {c.name for c in others}


def test_watch_comes_between_and_does_not_finish_a_cell(tmp_path):
    study = make_study(tmp_path / "s", evaluations=("watch", "linear_eval"), seeds=(3,))
    cell = study.cells()[0]
    write_result(study, cell, 0.0, "watch")
    assert not Record(study).is_finished(cell)


def test_one_that_fails_lets_the_others_run_and_is_tried_again_at_the_next_start(study, capsys):
    bad = study.cells()[1]
    runs = Runs(study, codes={(bad.name, "pretrain"): 2})
    two = session(study, runs), session(study, runs)
    for each in two:  # the second one finds nothing left to do
        assert each.run() == []
    assert len(runs.commands) == 2 * 5 + 1
    assert "failed in pretrain: It must be so. Received: this." in capsys.readouterr().out
    error = failures(Record(study), study.cells())
    assert error.exit_code == 1 and "1 of 6 cells failed" in str(error) and bad.name in str(error)
    runs.codes.clear()
    session(study, runs).run()
    assert runs.commands[11:] == [(bad.name, "pretrain"), (bad.name, "linear_eval")]
    assert failures(Record(study), study.cells()) is None


def test_a_broken_cell_goes_on_and_an_evaluation_is_not_repeated(tmp_path):
    study = make_study(tmp_path / "s", evaluations=("knn", "linear_eval"))
    cell = study.cells()[0]
    write_result(study, cell, 0.3, "knn")
    runs = Runs(study)
    session(study, runs, cells=[cell]).run()
    assert runs.commands == [(cell.name, "pretrain"), (cell.name, "linear_eval")]


def test_two_processes_share_the_cells(tmp_path):
    study = make_study(tmp_path / "s", seeds=tuple(range(5)))
    runs = [Runs(study), Runs(study)]
    both = [session(study, r) for r in runs]
    threads = [threading.Thread(target=each.run) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = sorted(runs[0].commands + runs[1].commands)
    assert found == sorted(
        (c.name, job) for c in study.cells() for job in ("pretrain", "linear_eval")
    )


def test_cells_of_another_process_are_awaited(study, monkeypatch):
    mine, *_ = cells = study.cells()
    others = session(study, Runs(study))
    claim = Claims(others.record.status_folder).take(mine.name)
    runs = Runs(study)
    waits = []

    def sleep(self):
        waits.append(len(runs.commands))
        write_result(study, mine, 0.5)
        claim.give_back()

    monkeypatch.setattr(Session, "_sleep", sleep)
    assert session(study, runs).run() == []
    assert waits == [2 * (len(cells) - 1)]
    assert mine.name not in {name for name, _ in runs.commands}


def test_a_signal_ends_the_study_and_the_cell_is_neither_finished_nor_failed(study):
    cell = study.cells()[0]
    stopping = session(study, None)

    class Stopped(Runs):
        def run(self, arguments, **around):
            stopping.stop.requested = True
            assert not around["keep"]()
            return 42

    stopping.processes = Stopped(study)
    with pytest.raises(PreemptedError, match="goes on"):
        stopping.run()
    record = Record(study)
    assert not record.is_finished(cell) and record.status(cell).failed is None
    assert Claims(record.status_folder).take(cell.name) is not None


def test_a_lost_device_ends_the_study_as_it_ends_a_run(study):
    runs = Runs(study, codes={(study.cells()[2].name, "pretrain"): 42})
    with pytest.raises(PreemptedError, match="It must be so"):
        session(study, runs).run()


def test_no_cell_is_started_that_does_not_fit(study, capsys):
    clock = Clock()
    runs = Runs(study, clock)
    left = session(study, runs, minutes=3.5, clock=clock).run()  # 210 s; a cell takes 60
    assert left == study.cells()[3:] and len(runs.commands) == 6
    said = capsys.readouterr().out
    assert "no cell is finished" in said
    assert "5 cells take about 5 min 0 s; the 2 min 30 s left have room for 2" in said
    assert "4 cells take about 4 min 0 s; the 1 min 30 s left have room for 1" in said
    session(study, runs, minutes=1.5, clock=clock).run()
    assert (
        "3 cells take about 3 min 0 s; the 1 min 30 s left have room for 1"
        in capsys.readouterr().out
    )
    assert len(runs.commands) == 8


def test_the_first_cell_is_stopped_if_its_first_steps_say_that_it_does_not_fit(study, capsys):
    clock = Clock()
    folder = pathlib.Path(study.folder) / "cells" / study.cells()[0].name

    class Slow(Runs):
        def run(self, arguments, *, log, claim, keep):
            folder.mkdir(parents=True)
            (folder / "run.json").write_text('{"total_steps": 100}')
            for step in (10, 20):
                assert keep()
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step}) + "\n")
                keep()
                clock.now += 10
            assert not keep()  # 70 s are left, and 80 steps take 80 s
            return 42

    assert session(study, Slow(study), minutes=1.5, clock=clock).run() == study.cells()
    assert "more than the" in capsys.readouterr().out


def test_a_forecast_counts_from_this_start_s_reports(tmp_path):
    clock = Clock()
    (tmp_path / "run.json").write_text('{"total_steps": 100}')
    lines = ['{"step": 10}']

    def report(step=None):
        lines.extend([] if step is None else [json.dumps({"step": step})])
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"st')

    report()
    forecast = Forecast(tmp_path, clock)
    clock.now += 1000
    assert forecast.seconds() is None
    report(20)
    assert forecast.seconds() is None
    clock.now += 30
    report(40)
    assert forecast.seconds() == pytest.approx(60 * 30 / 20)


def test_a_cell_takes_as_long_as_those_most_like_it(study):
    small, large = (next(c for c in study.cells() if c.labels[1] == b) for b in ("64", "256"))
    budget = Budget(None)
    assert budget.estimate(small) is None and budget.fits(small)
    budget.learn(small, 10.0)
    budget.learn(large, 40.0)
    like = {c.labels: budget.estimate(c) for c in study.cells()}
    assert like[("0.5", "64")] == 10.0 and like[("0.5", "256")] == 40.0
    assert like[("0.1", "128")] == like[("0.5", "128")] or like[("0.1", "128")] == 25.0


def test_a_folder_of_another_study_or_of_a_run_is_refused(tmp_path):
    study = make_study(tmp_path / "s")
    Record(study).open()
    Record(make_study(tmp_path / "s", seeds=(0, 1), published={"0.1": {}})).open()  # more seeds
    for changes, words in (
        ({"axes": {"a": {"b": []}}}, "axes is .*temperature"),
        ({"arguments": ("--gin_file=gin/cifar10.gin",)}, "arguments is .*quickstart.*cifar10"),
        ({"evaluations": ("knn", "linear_eval")}, "evaluations is"),
    ):
        with pytest.raises(RequestError, match=words):
            Record(make_study(tmp_path / "s", **changes)).open()
    run = tmp_path / "run" / "checkpoints"
    os.makedirs(run)
    with pytest.raises(RequestError, match="its own or empty"):
        Record(make_study(run.parent)).open()


def test_a_crash_fails_its_cell_alone_and_says_by_which_signal(study):
    bad = study.cells()[0]
    runs = Runs(study, codes={(bad.name, "linear_eval"): -9})
    session(study, runs).run()
    assert len(runs.commands) == 12
    error = failures(Record(study), study.cells())
    assert f"{bad.name} failed in linear_eval: ended by signal 9" in str(error)
