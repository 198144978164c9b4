"""If this breaks, the tutorial fails on a reader's machine, or shows outputs that are not there."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def printed(cell) -> str:
    return "".join("".join(output.get("text", [])) for output in cell["outputs"])


def check_outputs(cells):
    """Every cell that shows a picture has one, and every cell that prints has text."""
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        last = cell["source"][-1]
        pictures = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
        assert len(pictures) == last.startswith("show("), last
        assert bool(printed(cell)) or not last.startswith(("print(", "simclr(")), last
        assert all(o["output_type"] in ("stream", "execute_result") for o in cell["outputs"])


def test_the_notebook_has_outputs_without_paths_of_a_machine_and_is_small():
    cells = code_cells(NOTEBOOK)
    check_outputs(cells)
    assert NOTEBOOK.stat().st_size < 700_000
    for cell in cells:
        assert not re.search(r"(^|[\s'\"])/\w|Traceback|WARNING", printed(cell)), printed(cell)


def test_the_documents_that_it_names_are_there():
    named = re.findall(r"\b(?:docs|gin)/[\w-]+\.\w+", NOTEBOOK.read_text())
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_its_cells_run_in_order(tmp_path):
    output, work = tmp_path / "run.ipynb", tmp_path / "work"
    work.mkdir()
    variables = {"PYTHONPATH": str(ROOT), "TUTORIAL_QUICK": "1", "TUTORIAL_DIR": str(work)}
    done = subprocess.run(
        [sys.executable, "tools/run_notebook.py", str(NOTEBOOK), f"--output={output}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = code_cells(output)
    check_outputs(cells)
    assert [c["source"] for c in cells] == [c["source"] for c in code_cells(NOTEBOOK)]
    [difference] = re.findall(r"largest difference (\S+)", "".join(map(printed, cells)))
    assert float(difference) < 1e-4
    results = work / "runs/tutorial/results"
    assert {f.stem for f in results.glob("*.json")} == {"quickstart", "knn", "embed", "label_free"}
    for file in ("encoder.tflite", "runs/photos/saved_model", "runs/photos/results/embed.json"):
        assert (work / file).exists()
