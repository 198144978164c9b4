"""If this breaks, the command that writes reports fails, is slow, or overwrites a good one."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools/report.py"


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def model_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [{"step": step, "epoch": step / 10, "loss": 1 / step} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_one_run_s_report_lies_in_its_folder(model_dir):
    done = run(PROGRAM, model_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(model_dir / "report.html"))
    assert (model_dir / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not list(model_dir.glob("*.partial"))


def test_the_report_of_several_runs_lies_here_or_where_it_was_asked_for(model_dir, tmp_path):
    assert run(PROGRAM, model_dir, model_dir, cwd=tmp_path).returncode == 0
    assert "2 runs compared" in (tmp_path / "report.html").read_text()
    assert run(PROGRAM, model_dir, f"--output={tmp_path}/other.html").returncode == 0
    assert (tmp_path / "other.html").exists() and not (model_dir / "report.html").exists()


@pytest.mark.parametrize("name", ["gone", "empty", "gs://bucket/run"])
def test_what_is_no_run_is_refused_in_one_line(model_dir, tmp_path, name):
    (tmp_path / "empty").mkdir()
    done = run(PROGRAM, model_dir, name, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: Each folder must be a run's --model_dir")
    assert pathlib.Path(name).as_posix() in line
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("output", ["no/report.html", ".", "run"])
def test_a_report_that_cannot_be_written_is_refused_in_one_line(model_dir, tmp_path, output):
    done = run(PROGRAM, model_dir, f"--output={output}", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["run"] and os.listdir(model_dir) == ["metrics.jsonl"]


def test_neither_tensorflow_nor_keras_is_waited_for(model_dir):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['report', {str(model_dir)!r}]\n"
        f"sys.path.insert(0, {str(PROGRAM.parent)!r})\n"
        f"try:\n    runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, {'tensorflow', 'keras', 'numpy', 'matplotlib'} & set(sys.modules))\n"
    )
    done = run("-c", code)
    assert done.stdout.splitlines()[-1] == "0 set()", done.stderr


@pytest.mark.slow
def test_an_installed_package_holds_the_page_s_style_and_scripts(tmp_path):
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    built = tmp_path / "source"
    built.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "simclr_tf", "gin"):
        (built / name).symlink_to(ROOT / name)
    done = run(*command, f"--wheel-dir={tmp_path}", built)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        f"simclr_tf/report/{p.name}" for p in (ROOT / "simclr_tf/report").iterdir() if p.is_file()
    }
    assert files <= names and {name.rpartition(".")[2] for name in files} == {"py", "css", "js"}
