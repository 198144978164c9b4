"""If this breaks, a wrong step on an accelerator is called equal, or the tool needs more."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="needs the extra [pjrt]")
pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = (
    "resnet.depth = 6",
    "resnet.width_multiplier = 0.125",
    "pretrain.global_batch_size = 8",
    "pretrain.epochs = 0.01",
    "pretrain.precision = 'float32'",
)
# Python, in which TensorFlow cannot be imported.
WITHOUT = "import sys, runpy; sys.modules['tensorflow'] = sys.modules['keras'] = None; {}"
RUN = "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def tool(monkeypatch, *arguments) -> int:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import pjrt_smoke

    return pjrt_smoke.main(list(map(str, arguments)))


def without_tensorflow(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(RUN), ROOT / "tools/pjrt_smoke.py", *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tools"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_exported_step_is_compared_without_tensorflow(monkeypatch, tmp_path):
    recipe = f"--gin_file={ROOT}/gin/quickstart.gin"
    bindings = [f"--gin_bindings={binding}" for binding in TINY]
    counts = ["--devices=2", "--batches=2"]
    assert tool(monkeypatch, "export", tmp_path, recipe, *bindings, *counts) == 0
    run = ["run", str(tmp_path), "--cpu", "--steps=2", "--peak_tflops=1.0"]
    done = without_tensorflow(*run)
    assert done.returncode == 0, done.stderr
    assert "PJRT (2 on cpu)" in done.stdout and "\nequal, to 2% of the first loss" in done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line[:4] in ("| 1 ", "| 2 ")]
    assert [float(row[3].rstrip(" |")) < 1e-3 for row in rows] == [True, True]
    assert "images/s" in done.stdout and "(MFU)" in done.stdout

    told = json.loads((tmp_path / "smoke.json").read_text())
    at = told["metrics"].index("loss")
    told["expected"][0][at] *= 1.03
    (tmp_path / "smoke.json").write_text(json.dumps(told))
    done = without_tensorflow(*run)
    assert done.returncode == 1 and "NOT EQUAL" in done.stdout
