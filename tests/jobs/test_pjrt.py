"""If this breaks, a classifier is another one when PJRT devices train it."""

import json

import numpy as np
import pytest

from tests.jobs.test_distill import SHORT, export

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("virtual_devices")]


@pytest.mark.parametrize("job", ["distill", "finetune"])
def test_a_classifier_is_trained_alike(evaluation, job, tmp_path):
    export(tmp_path / "teacher")
    settings = {
        "distill": (f"distill.teacher = '{tmp_path}/teacher'", "distill.label_weight = 0.25"),
        "finetune": ("finetune.frozen_groups = 1", "finetune.label_share = 0.5"),
    }[job]
    weights = "whole" if job == "finetune" else None
    found = {}
    for runtime in ("tensorflow", "pjrt"):
        folder = tmp_path / runtime
        arguments = {"weights": weights, "runtime": runtime}
        often = "train_classifier.steps_per_loop = 1"
        result = evaluation.result(job, folder, *SHORT, often, *settings, **arguments)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        found[runtime] = [json.loads(line)["loss"] for line in lines]
        assert result["n"]["test"] == 12
    assert len(found["pjrt"]) > 1
    np.testing.assert_allclose(found["pjrt"], found["tensorflow"], rtol=1e-3)
