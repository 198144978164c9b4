"""If this breaks, a wrong request to a tool ends in a traceback, or a `~` names no folder."""

import importlib
import pathlib
import sys

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a tool in this process; returns its exit code and the last line of its errors."""
    monkeypatch.syspath_prepend(TOOLS)
    before = set(sys.modules)

    def answer(name, *arguments):
        try:
            code = importlib.import_module(name).main(list(map(str, arguments)))
        except SystemExit as error:  # argparse
            code = error.code
        captured = capsys.readouterr()
        return code, captured.err.strip().splitlines()[-1] if captured.err else captured.out

    yield answer
    for name in set(sys.modules) - before:
        if not name.startswith(("simclr_tf", "tensorflow", "keras")):
            sys.modules.pop(name)


@pytest.fixture
def places(tmp_path):
    """Paths that a person may give by mistake."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{")
    (tmp_path / "damaged" / "results").mkdir(parents=True)
    (tmp_path / "damaged" / "results" / "knn.json").write_bytes(b"\xff{")
    (tmp_path / "folders" / "results" / "knn.json").mkdir(parents=True)
    return {name: str(tmp_path / name) for name in ("none", "empty", "file", "damaged", "folders")}


NOT_RUNS = ("{none}", "{empty}", "{file}")
REQUESTS = [
    *(("results_table", place) for place in (*NOT_RUNS, "{damaged}", "{folders}")),
    *(("report", place) for place in NOT_RUNS),
    ("report", "{damaged}", "--output={none}/x.html"),
    ("report", "{damaged}", "--output={file}/x.html"),
    ("compatibility", "--folder={file}", f"--python={sys.executable}"),
    ("compatibility", "--folder={empty}", "--python={none}"),
    ("make_old_run", "--output={empty}"),
    ("make_old_run", "--output={file}/new"),
    *(("run_notebook", place) for place in ("{none}", "{empty}", "{file}")),
    *(("fuzz_images", f"--data_dir={place}") for place in NOT_RUNS),
    *(("compatibility_outputs", place, "{none}") for place in NOT_RUNS),
    ("compatibility_outputs",),
    *(("convert_checkpoint", place, "--model_dir={none}") for place in NOT_RUNS),
    *(("convert_checkpoint", place, "--to=torch", "--output={none}.x") for place in NOT_RUNS),
    ("convert_checkpoint", "{file}"),
    ("benchmark", "loss", "--images=1"),
    ("benchmark", "loss", "--dim=0"),
    ("benchmark", "resume", "--images=-3"),
    ("benchmark", "input"),
    ("benchmark", "input", "--gin_file={none}"),
    ("benchmark", "step", "--gin_file={empty}"),
    ("benchmark", "input", "--gin_file={empty}", "--runtime=pjrt"),
    ("pjrt_smoke", "export", "{none}"),
    ("pjrt_smoke", "run", "{none}", "--steps=0"),
    *(("pjrt_smoke", "run", place) for place in ("{none}", "{empty}", "{file}")),
    ("preflight", "--gin_file={none}", "--topology=v3:8x8"),
]
FLAGS = ("results_table", "report", "compatibility", "make_old_run", "fuzz_images", "benchmark")


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: " ".join(r))
def test_a_wrong_request_is_one_message_and_2(tool, places, request_):
    name, *arguments = request_
    code, last = tool(name, *(argument.format(**places) for argument in arguments))
    assert code == 2 and "error: " in last


@pytest.mark.parametrize("name", [*FLAGS, "convert_checkpoint", "compatibility_outputs"])
def test_an_unknown_flag_is_one_message_and_2(tool, name):
    code, last = tool(name, "--no_such_flag=1")
    assert code == 2 and "error: " in last


def test_a_bug_keeps_its_traceback(tool, monkeypatch):
    command_line = importlib.import_module("command_line")
    with pytest.raises(ZeroDivisionError):
        command_line.refusing(lambda: 1 // 0)()


def test_a_tilde_is_the_home_folder(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    results = tmp_path / "run" / "results"
    results.mkdir(parents=True)
    (results / "knn.json").write_text('{"numbers": {"top1": 0.5}}')
    code, out = tool("results_table", "~/run")
    assert code == 0 and str(tmp_path / "run") in out
    code, out = tool("report", "~/run", "--output=~/report.html")
    assert code == 0 and (tmp_path / "report.html").is_file()
    command_line = importlib.import_module("command_line")
    assert command_line.path("~/a") == tmp_path / "a"
    assert command_line.address("gs://bucket/a") == "gs://bucket/a"
