"""If this breaks, a recipe or a file from other people runs code of theirs, or never ends."""

import ast
import pathlib
import sys

import pytest
from gin import config as gin_internals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simclr_tf import config, jobs
from simclr_tf.errors import RequestError

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Running the cells of a notebook that its user names is all that this tool is for.
RUNS_CODE_ON_REQUEST = ROOT / "tools/run_notebook.py"
SOURCES = sorted(p for part in ("simclr_tf", "tools") for p in (ROOT / part).rglob("*.py"))
# Modules that turn bytes into objects of any class, and functions that run text or code from files.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "torch.load",
    "pandas.read_pickle",
    "keras.models.load_model",
    "keras.saving.load_model",
    "tf.keras.models.load_model",
    "keras.config.enable_unsafe_deserialization",
    "runpy.run_path",
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    jobs.load()


def found_in(text: str) -> list[str]:
    """What in a program could run code that a file holds."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{a.name}" for a in node.names]
            found += [n for n in full if n in CALLS or n.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            found += [called] if called in NAMES | CALLS else []
            for keyword, safe in (
                ("allow_pickle", "False"),
                ("shell", "False"),
                ("safe_mode", "True"),
            ):
                found += [f"{called}({keyword})"] if given.get(keyword, safe) != safe else []
            if called in ("np.load", "numpy.load", "np.save") and "allow_pickle" not in given:
                found.append(f"{called} without allow_pickle")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_or_runs_text(path):
    allowed = {"exec", "eval", "compile"} if path == RUNS_CODE_ON_REQUEST else set()
    assert not set(found_in(path.read_text())) - allowed


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "from os import system",
        "eval(x)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
        "keras.models.load_model(p)",
        "torch.load(p)",
    ],
)
def test_the_scan_finds_what_it_looks_for(text):
    assert found_in(text)


def test_what_gin_may_call_is_ours():
    called = [configurable.wrapped for _, configurable in gin_internals._REGISTRY.items()]
    modules = {function.__module__.split(".")[0] for function in called}
    assert modules <= {"simclr_tf", "gin"}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A package that notes when it is imported, on the path of Python."""
    package = tmp_path / "simclr_trap"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "simclr_trap"
    assert "simclr_trap" not in sys.modules


@pytest.mark.parametrize(
    "line",
    [
        "import {trap}",
        "import {trap}.thing",
        "import {trap} as x",
        "from {trap} import thing",
        "from __gin__ import dynamic_registration",
        "include '{trap}/inner/own.gin'",
        "include '{trap}.inner/own.gin'",
        "resnet.depth = @{trap}.thing()",
        "resnet.depth = @os.system()",
        "{trap}.thing.x = 1",
    ],
)
@pytest.mark.parametrize("where", ["file", "included", "binding"])
def test_recipes_import_nothing_and_call_what_is_registered(line, where, trap, tmp_path):
    line = line.format(trap=trap)
    recipe, inner = tmp_path / "own.gin", tmp_path / "inner.gin"
    inner.write_text(line)
    recipe.write_text({"file": line, "included": "include 'inner.gin'"}.get(where, ""))
    with pytest.raises(RequestError, match="recipe does not load"):
        config.load([str(recipe)], [line] if where == "binding" else [])


@pytest.mark.parametrize("depth", [40, 150, 5000])
def test_values_nested_too_deep_are_refused(depth):
    with pytest.raises(RequestError):
        config.load([], [f"pretrain.epochs = {'[' * depth}1{']' * depth}"])
        config.check({"pretrain"})


@pytest.mark.parametrize(
    "lines",
    [
        ["A = %A", "pretrain.epochs = %A"],
        ["A = %B", "B = [%A, %A]", "pretrain.epochs = %A"],
        ["pretrain.epochs = %MISSING"],
        ["A0 = (1, 1)", *(f"A{i + 1} = ({f'%A{i},' * 10})" for i in range(9)), "run.job = %A9"],
    ],
)
def test_macros_end(lines, tmp_path):
    recipe = tmp_path / "own.gin"
    recipe.write_text("\n".join(lines))
    with pytest.raises(RequestError):
        config.load([str(recipe)], [])
        config.check({"pretrain"})


def test_files_that_include_themselves_or_too_many_are_refused(tmp_path):
    (tmp_path / "self.gin").write_text("include 'self.gin'\n")
    for i in range(9):
        (tmp_path / f"{i}.gin").write_text(f"include '{i + 1}.gin'\n" * 10)
    (tmp_path / "9.gin").write_text("")
    for first in ("self.gin", "0.gin"):
        with pytest.raises(RequestError, match="at most 100 files"):
            config.load([str(tmp_path / first)], [])


def test_a_file_names_no_program_to_run(tmp_path):
    line = "preflight.compiler_python = 'sh'"
    recipe = tmp_path / "own.gin"
    recipe.write_text(line)
    with pytest.raises(RequestError, match="on the command line"):
        config.load([str(recipe)], [])
    config.load([], [line])


PIECES = st.sampled_from(
    [
        *("import", "include", "from", "gin", "os", "resnet", "depth", "pretrain", "run", "job"),
        *("lars", "None", "True", "1e9", "0x", "macro", "singleton", "@resnet()", "%gin.REQUIRED"),
        *"=@%/.()[]{},:'\"\\#-\n\t\0é",
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map(" ".join)))
def test_any_text_loads_or_is_refused(text):
    try:
        config.load([], [text])
        config.check({"pretrain"})
    except RequestError as error:
        assert str(error).strip()
