"""If this breaks, nobody can tell by which command and on which machine a run came about."""

import json
import platform
import re

import keras
import tensorflow as tf

import simclr_tf
from simclr_tf.training.plan import plan_text
from simclr_tf.training.run_json import record_start

PLAN = {"data": "shapes, 10 images", "  kernel": "2 variables"}


def start(folder, step) -> dict:
    record_start(str(folder), job="pretrain", plan=PLAN, total_steps=9, step=step)
    return json.loads((folder / "run.json").read_text())


def test_every_start_is_recorded(tmp_path):
    start(tmp_path, 0)
    record = start(tmp_path, 4)
    starts = record.pop("starts")
    assert record == {
        "job": "pretrain",
        "total_steps": 9,
        "plan": {"data": "shapes, 10 images", "kernel": "2 variables"},
    }
    assert [s["step"] for s in starts] == [0, 4]
    for s in starts:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", s["time"])
        assert s["command"].split()[0].startswith("py") and "/" not in s["command"].split()[0]
        found = s["environment"]
        assert found["processors"] > 0 and found["memory_gib"] > 0.1
        assert found["devices"] == f"{len(tf.config.list_logical_devices())} CPU"
        for name, version in (
            ("simclr_tf", simclr_tf.__version__),
            ("python", platform.python_version()),
            ("tensorflow", tf.__version__),
            ("keras", keras.__version__),
        ):
            assert found[name] == version


def test_a_damaged_record_does_not_stop_a_run(tmp_path):
    (tmp_path / "run.json").write_text('{"job": "pre')
    assert [s["step"] for s in start(tmp_path, 4)["starts"]] == [4]


def test_the_printed_plan_has_a_line_a_subject():
    assert plan_text(PLAN) == "data      shapes, 10 images\n  kernel  2 variables"
