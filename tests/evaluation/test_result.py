"""If this breaks, an evaluation that took an hour ends without its numbers."""

import dataclasses
import json
import sys
import types

import numpy as np
import pytest

from simclr_tf import jobs
from simclr_tf.context import Context
from simclr_tf.evaluation.result import Result, publish


@dataclasses.dataclass
class Interval:
    low: float
    high: float


def test_numbers_of_numpy_and_dataclasses_are_written(tmp_path, capsys):
    record = {"numbers": {"top1": np.float32(0.5), "of": Interval(0.25, 1.0), "each": np.arange(2)}}
    publish(Result(job="own", text="half", record=record), str(tmp_path))
    written = json.loads((tmp_path / "results" / "own.json").read_text())
    assert written["numbers"] == {"top1": 0.5, "of": {"low": 0.25, "high": 1.0}, "each": [0, 1]}
    assert capsys.readouterr().out == "half\n"


def test_what_json_cannot_hold_is_named(tmp_path, capsys):
    with pytest.raises(TypeError, match=r"A record must hold numbers.*Received: set"):
        publish(Result(job="own", text="half", record={"numbers": {1}}), str(tmp_path))
    assert capsys.readouterr().out == ""


@pytest.fixture
def own_job(monkeypatch):
    """Adds a job, as a program that extends this one does."""

    def add(function):
        module = types.ModuleType("own_jobs")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, "own_jobs", module)
        monkeypatch.setitem(jobs.MODULES, function.__name__, "own_jobs")
        return jobs.load()[function.__name__]

    return add


def test_a_job_that_returns_no_result_is_told(own_job, tmp_path):
    def centres(context, *, encoder=None):
        return 0.5, Result(job="centres", text="", record={})

    run = own_job(centres)
    with pytest.raises(TypeError, match=r"'centres' must return a Result.*Received: tuple"):
        run(Context(model_dir=str(tmp_path)))
    assert jobs.added_evaluations() == {"centres": centres}
