"""If this breaks, `preflight` says nothing, or something else than the compiler."""

import json
import os
import subprocess
import sys

import pytest

from simclr_tf.context import Context
from simclr_tf.errors import RequestError
from simclr_tf.jobs import preflight as job

pytest.importorskip("libtpu", reason="needs the extra [preflight]")


def preflight(folder, *arguments):
    command = [sys.executable, "tools/preflight.py", "--gin_file=gin/quickstart.gin"]
    return subprocess.run(
        [*command, f"--model_dir={folder}", *arguments],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        check=False,
    )


@pytest.mark.slow
def test_a_small_recipe_compiles_for_two_generations(tmp_path):
    done = preflight(tmp_path, "--topology=v3:2x2", "--topology=v5e:2x2")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results" / "preflight.json").read_text())
    assert record["versions"]["libtpu"]
    for result, devices, batch in zip(record["numbers"], (8, 4), (16, 32), strict=True):
        assert (result["devices"], result["images_per_device"]) == (devices, batch)
        assert result["fits"] and result["used_bytes"] < result["hbm_bytes"]
        # Every weight and velocity is replaced in its place.
        assert 0.9 < result["aliased_bytes"] / result["output_bytes"] <= 1
        assert result["model_flop"] <= result["flop"] < 3 * result["model_flop"]
        assert 0 < result["estimated_utilization"] < 1
        assert sum(c["count"] for c in result["collectives"]) > 20
        assert len(result["longest"]) == 10 and all(f["op"] for f in result["longest"])
        assert result["topology"] in done.stdout


@pytest.mark.slow
def test_one_device_that_works_in_parts(tmp_path):
    """Four micro-batches of 4 images, twice; and the loss of 32 views in blocks of 10 anchors."""
    small = ["resnet.width_multiplier = 0.125", "pretrain.global_batch_size = 16"]
    parts = ["pretrain.microbatch_size = 4", "nt_xent.block_size = 10"]
    bindings = [f"--gin_bindings={binding}" for binding in (*small, *parts)]
    done = preflight(tmp_path, "--topology=v5e:1x1", *bindings)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "results" / "preflight.json").read_text())["numbers"]
    assert (result["devices"], result["images_per_device"]) == (1, 16)
    assert result["unknown_loops"] == [] and result["flop"] is None
    assert 0 < result["estimated_utilization"] < 1
    # The longest are convolutions, in the loops over the micro-batches.
    assert {f["times"] for f in result["longest"]} <= {1, 4, -(-32 // 10)}
    assert sum(f["times"] == 4 for f in result["longest"]) > 5
    assert "unknown" not in done.stdout and "as compiled" not in done.stdout


def test_wrong_requests(tmp_path):
    done = preflight(tmp_path, "--topology=v3:3x3x")
    assert done.returncode == 2 and "topology must be" in done.stderr
    done = preflight(tmp_path, "--gin_bindings=preflight.compiler_python = '/no/python'")
    assert done.returncode == 2 and "/no/python" in done.stderr
    assert not os.listdir(tmp_path)


def test_a_host_that_xla_does_not_compile_for_is_told_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "host_compiles", lambda: False)
    with pytest.raises(RequestError, match=r"the wheel for TPU hosts lacks\. .*cpu,preflight"):
        job.preflight(Context(model_dir=str(tmp_path)), topologies=["no topology"])
