"""If this breaks, a version is called supported in which the tests failed or were never run."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools/compatibility.py"
MINE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def compatibility(monkeypatch):
    """The program, imported as a command does, and what it takes from the module beside it."""
    monkeypatch.syspath_prepend(PROGRAM.parent)
    module = importlib.import_module("compatibility")
    module.environments = importlib.import_module("compatibility_environments")
    yield module
    for name in ("compatibility", "compatibility_environments"):
        del sys.modules[name]


@pytest.fixture
def two(compatibility, monkeypatch, tmp_path):
    """A program with two environments, in which every command is recorded and stands for itself.

    Outputs are those of the environment's versions: the second differs by `two.off` parts.
    """
    first, second = compatibility.environments.ALL[0], compatibility.environments.ALL[-1]
    environments = [
        compatibility.Environment(v, "python", tmp_path / v.folder) for v in (first, second)
    ]
    monkeypatch.setattr(compatibility, "plan", lambda *_: environments)
    compatibility.calls, compatibility.fails, compatibility.off = [], set(), 1e-6
    compatibility.suite = '<testsuites><testsuite {}="1" {}="0" errors="0" skipped="2" tests="9"/>'

    def run(self, log, *command, allowed=(0,)):
        compatibility.calls.append((self.versions, log))
        if log in compatibility.fails:
            raise compatibility.StepError("exit code 7")
        if log == "versions":
            found = {"python": "3.x", "tensorflow": self.versions.tensorflow, "keras": "3.y"}
            (self.folder / "versions.log").write_text(json.dumps(found))
        elif log == "tests":
            report = re.fullmatch("--junitxml=(.*)", command[3])[1]
            failures = ("failures", "x") if self.versions == second else ("x", "failures")
            text = compatibility.suite.format(*failures) + "</testsuites>"
            pathlib.Path(report).write_text(text)
        elif command[1] == str(compatibility.environments.OUTPUTS):
            h = [1.0, -2.0 + (compatibility.off if self.versions == second else 0.0)]
            pathlib.Path(command[3]).write_text(
                json.dumps({"checkpoint": {"h": h, "z": [0.5]}, "png": {"h": h}})
            )
        elif "simclr_tf.run" in command:
            [model_dir] = [c.partition("=")[2] for c in command if c.startswith("--model_dir=")]
            for step in (3, 7):
                checkpoint = pathlib.Path(model_dir) / f"checkpoints/step_{step:08d}"
                checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint.parent / "lock").touch()

    monkeypatch.setattr(compatibility.Environment, "run", run)
    return compatibility


def start(module):
    return module.main(["--folder=.", "--python=python", "--", "-q", "-m", "not slow"])


def cells(text):
    """The rows of all tables, without the rules under their headers."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_both_ends_of_what_setup_py_asks_for_are_tested(compatibility):
    text = (ROOT / "setup.py").read_text()
    low, below = re.search(r'"tensorflow>=([\d.]+),<([\d.]+)"', text).groups()
    keras = re.search(r'"keras>=([\d.]+)"', text)[1]
    python = re.search(r'python_requires=">=([\d.]+)"', text)[1]
    lowest, newest = compatibility.environments.ALL[0], compatibility.environments.ALL[-1]
    assert lowest.python == python
    assert lowest.tensorflow.startswith(low + ".") and lowest.keras.startswith(keras + ".")
    assert int(newest.tensorflow.split(".")[1]) == int(below.split(".")[1]) - 1
    assert lowest.requirements() == ["tensorflow==2.19.1", "keras==3.10.0"]
    assert newest.requirements()[1] == "keras"


def test_environments_are_those_of_the_interpreters(compatibility, tmp_path):
    expected = [v for v in compatibility.environments.ALL if v.python == MINE]
    found = compatibility.plan([sys.executable], tmp_path)
    assert [e.versions for e in found] == expected
    assert len({e.folder for e in found}) == len(expected)
    assert all(e.folder.parent == tmp_path and e.interpreter == sys.executable for e in found)


@pytest.mark.parametrize(
    ("script", "words"),
    [(None, "No such file"), ("exit 3", "exit status 3"), ("echo Python 3.9.1", "which is 3.9.")],
)
def test_a_python_that_cannot_be_used_is_refused(compatibility, tmp_path, capsys, script, words):
    path = tmp_path / "python"
    if script:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    assert compatibility.main([f"--folder={tmp_path}", f"--python={path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --python must be") and words in error


def test_the_counts_are_those_of_pytest(compatibility, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken():\n    raise ValueError\n"
        "@pytest.mark.parametrize('n', range(5))\ndef test_passes(n): pass\n"
        "def test_fails(): assert 0\n"
        "def test_errs(broken): pass\n"
        "@pytest.mark.skip\ndef test_skips(): pass\n"
        "@pytest.mark.xfail\ndef test_fails_as_known(): assert 0\n"
    )
    report = tmp_path / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert compatibility.environments.count(report) == {"passed": 5, "failed": 2, "skipped": 2}


def test_the_tables_say_what_was_found(two, capsys):
    assert start(two) == 1  # a test failed in the second environment
    first, second = "3.10 / 2.19.1 / 3.10.0", "3.13 / 2.21.0 / newest"
    assert cells(capsys.readouterr().out) == [
        ["Python", "TensorFlow", "Keras", "passed", "failed", "skipped"],
        ["3.x", "2.19.1", "3.y", "7", "0", "2"],
        ["3.x", "2.21.0", "3.y", "6", "1", "2"],
        *[
            ["Python / TensorFlow / Keras", first, second],
            [first, "0.0e+00", "5.0e-07"],
            [second, "5.0e-07", "0.0e+00"],
        ]
        * 2,
    ]


def test_the_same_command_goes_on_and_repeats_nothing(two, capsys):
    start(two)
    whole = cells(capsys.readouterr().out)
    done = list(two.calls)
    assert len(done) == len(set(done))
    two.calls.clear()
    start(two)
    assert two.calls == [] and cells(capsys.readouterr().out) == whole
    [environment, _] = two.plan()
    (environment.folder / "tests.xml").unlink()
    start(two)
    assert two.calls == [(environment.versions, "tests")]


@pytest.mark.parametrize("failing", ["install", "tests", "write", "write_outputs"])
def test_what_did_not_work_is_tried_again(two, capsys, failing):
    two.suite = two.suite.replace('{}="1" {}="0"', 'failures="0" x="{}{}"')
    two.fails = {failing}
    assert start(two) == 1
    assert "exit code 7" in capsys.readouterr().out
    two.fails = set()
    assert start(two) == 0
    output = capsys.readouterr().out
    assert "**failed**" not in output and "not run" not in output


def test_other_outputs_are_a_failure(two, capsys):
    two.suite = two.suite.replace('{}="1" {}="0"', 'failures="0" x="{}{}"')
    two.off = 1e-3
    assert start(two) == 1
    rows = cells(capsys.readouterr().out)
    read, resumed = rows[4], rows[7]
    assert read[1:] == ["0.0e+00", "**5.0e-04**"] and resumed[1:] == ["0.0e+00", "5.0e-04"]


def test_numbers_that_are_none_or_too_few_do_not_agree(compatibility):
    expected = {"h": [1.0, 2.0]}
    for wrong in ([1.0, float("nan")], [float("nan"), 2.0], [1.0, float("inf")]):
        value = compatibility.environments.difference({"h": wrong}, expected)
        assert compatibility.cell(value, 1e-5) == "**inf**"
    with pytest.raises(ValueError, match="zip"):
        compatibility.environments.difference({"h": [1.0]}, expected)
