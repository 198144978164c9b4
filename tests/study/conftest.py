"""Studies without a recipe's parts: their cells' results are written by the tests."""

import json
import pathlib

import pytest

from simclr_tf.study.cells import Study


def make_study(folder, **changes) -> Study:
    settings = {
        "folder": str(folder),
        "arguments": ("--gin_file=gin/quickstart.gin",),
        "job": "pretrain",
        "evaluations": ("linear_eval",),
        "axes": {
            "temperature": {t: [f"nt_xent.temperature = {t}"] for t in ("0.1", "0.5")},
            "batch": {b: [f"pretrain.global_batch_size = {b}"] for b in ("64", "128", "256")},
        },
        "measure": "linear_eval top1",
    }
    return Study(**settings | changes)


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


def write_result(study: Study, cell, top1: float, job: str = "linear_eval") -> None:
    """Leaves what an evaluation of a cell would."""
    folder = pathlib.Path(study.folder) / "cells" / cell.name / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job}.json").write_text(json.dumps({"numbers": {"top1": top1}}))
