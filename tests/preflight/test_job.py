"""If this breaks, `preflight` says nothing, or something else than the compiler."""

import json
import os
import pathlib
import runpy

import pytest

from simclr_tf.context import Context
from simclr_tf.distribute import xla
from simclr_tf.errors import RequestError
from simclr_tf.jobs import preflight as job
from tests.support.small_resnet import SMALL_DEPTH

pytest.importorskip("libtpu", reason="needs the extra [preflight]")


ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = str(ROOT / "tools" / "preflight.py")
SMALL = f"--gin_bindings=resnet.depth = {SMALL_DEPTH}"


def arguments(folder, *others) -> list[str]:
    return [f"--gin_file={ROOT}/gin/quickstart.gin", f"--model_dir={folder}", *others]


def preflight(folder, *others) -> int:
    """Runs the tool in this process."""
    return runpy.run_path(TOOL)["main"](arguments(folder, *others))


@pytest.mark.slow
def test_a_small_recipe_compiles_for_two_generations(tmp_path, capfd):
    options = ("--topology=v3:2x2", "--topology=v5e:2x2", SMALL)
    assert preflight(tmp_path, *options) == 0
    output = capfd.readouterr().out
    record = json.loads((tmp_path / "results" / "preflight.json").read_text())
    assert record["versions"]["libtpu"]
    for result, devices, batch in zip(record["numbers"], (8, 4), (16, 32), strict=True):
        assert (result["devices"], result["images_per_device"]) == (devices, batch)
        assert result["fits"] and result["used_bytes"] < result["hbm_bytes"]
        # Every weight and velocity is replaced in its place.
        assert 0.9 < result["aliased_bytes"] / result["output_bytes"] <= 1
        assert result["model_flop"] <= result["flop"] < 3 * result["model_flop"]
        assert 0 < result["estimated_utilization"] < 1
        assert sum(c["count"] for c in result["collectives"]) > 10
        assert len(result["longest"]) == 10 and all(f["op"] for f in result["longest"])
        assert result["topology"] in output


@pytest.mark.slow
def test_one_device_that_works_in_parts(tmp_path, capfd):
    """Four micro-batches of 4 images, twice; and the loss of 32 views in blocks of 10 anchors."""
    batch = ["pretrain.global_batch_size = 16"]
    parts = ["pretrain.microbatch_size = 4", "nt_xent.block_size = 10"]
    bindings = [f"--gin_bindings={binding}" for binding in (*batch, *parts)]
    assert preflight(tmp_path, "--topology=v5e:1x1", SMALL, *bindings) == 0
    output = capfd.readouterr().out
    (result,) = json.loads((tmp_path / "results" / "preflight.json").read_text())["numbers"]
    assert (result["devices"], result["images_per_device"]) == (1, 16)
    assert result["unknown_loops"] == [] and result["flop"] is None
    assert 0 < result["estimated_utilization"] < 1
    # The longest are convolutions, in the loops over the micro-batches.
    assert {f["times"] for f in result["longest"]} <= {1, 4, -(-32 // 10)}
    assert sum(f["times"] == 4 for f in result["longest"]) > 5
    assert "unknown" not in output and "as compiled" not in output


def test_wrong_requests(tmp_path, capfd):
    assert preflight(tmp_path, "--topology=v3:3x3x") == 2
    assert "topology must be" in capfd.readouterr().err
    assert preflight(tmp_path, "--gin_bindings=preflight.compiler_python = '/no/python'") == 2
    assert "/no/python" in capfd.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_host_that_xla_does_not_compile_for_is_told_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setattr(xla, "host_compiles", lambda: False)
    with pytest.raises(RequestError, match=r"the wheel for TPU hosts lacks\. .*cpu,preflight"):
        job.preflight(Context(model_dir=str(tmp_path)), topologies=["no topology"])
