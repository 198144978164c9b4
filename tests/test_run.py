"""If this breaks, the command line is slow to answer, or a wrong flag ends in a traceback."""

import os
import pathlib
import subprocess
import sys

import pytest

from simclr_tf import run

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECIPES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "gin").rglob("*.gin"))


def python(program, **env):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | env,
    )


def test_help_imports_nothing_heavy():
    done = python(
        "import sys; from simclr_tf import run; code = run.main(['--help']);"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'tensorflow_datasets', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "--gin_bindings" in done.stdout and "linear_eval" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gin_flie=x"], "gin_flie"),
        (["gin/base.gin"], "Every argument must be a --flag=value"),
        ([], "A recipe must be given"),
        (["--gin_file=gin/nowhere.gin"], "nowhere.gin"),
        (["--gin_file=gin/base.gin", "--job=pretrian"], "Did you mean pretrain?"),
    ],
)
def test_wrong_flags_end_with_2(capsys, arguments, words):
    assert run.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_debug_prints_the_traceback_and_the_message_last(capsys):
    assert run.main(["--gin_file=gin/nowhere.gin", "--debug"]) == 2
    trace, _, message = capsys.readouterr().err.partition("\nerror: ")
    assert trace.startswith("Traceback") or "\nTraceback" in trace
    assert "in load\n" in trace and "nowhere.gin" in message
    assert run.main(["--gin_file=gin/nowhere.gin"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_bug_ends_with_1_and_its_traceback(flags):
    done = python(
        "import sys; from simclr_tf import run; run._run = lambda values: len(3);"
        f"sys.exit(run.main({flags}))"
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "TypeError: object of type 'int'" in done.stderr
    assert "error: " not in done.stderr


def test_paths_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.gin").write_text("run.job = 'pretrain'\n")
    found = []
    monkeypatch.setattr(run.jobs, "load", lambda: dict.fromkeys(run.jobs.MODULES, found.append))
    monkeypatch.setattr("simclr_tf.config.check", lambda roots: None)
    given = ("--gin_file=~/mine.gin", "--data_dir=~/caf\udce9")
    assert run.main([*given, "--model_dir=~/m", "--job=pretrain"]) == 0
    wanted = run.jobs.Context(
        model_dir=f"{tmp_path}/m", data_dir=f"{tmp_path}/caf\udce9", arguments=given
    )
    assert found == [wanted]


def test_a_message_shows_any_name_on_any_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "simclr_tf.run", "--gin_file=gin/base.gin", b"--model_dir=caf\xe9"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert b"error: The path of what TensorFlow" in done.stderr and rb"caf\xe9" in done.stderr


def test_a_libtpu_that_would_end_the_process_is_refused_before(capsys, monkeypatch):
    monkeypatch.setattr(run.environment, "libtpu_problem", lambda: "libtpu must be older.")
    monkeypatch.setattr(run.jobs, "load", lambda: pytest.fail("TensorFlow was imported"))
    assert run.main(["--gin_file=gin/quickstart.gin"]) == 2
    assert "libtpu must be older. To mend it, in a fresh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--tpu_runtime=pjrt"], {}, "The PJRT plug-in needs"),
        ([], {"TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/no/libtpu.so"}, "The PJRT plug-in needs"),
        (["--tpu_runtime=tfrt"], {}, "tpu_runtime"),
    ],
)
def test_a_runtime_that_would_end_the_process_is_refused_before(
    capsys, monkeypatch, arguments, variables, words
):
    monkeypatch.setattr(run.jobs, "load", lambda: pytest.fail("TensorFlow was imported"))
    monkeypatch.setattr(run.environment, "installed", lambda name: None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run.main(["--gin_file=gin/quickstart.gin", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_runtime_is_chosen_before_tensorflow_is_imported(monkeypatch):
    done = []
    monkeypatch.setattr(run.tpu_runtime, "choose", lambda *asked: done.append(asked))
    monkeypatch.setattr(run.jobs, "load", lambda: done.append("imported") or {})
    run.main(["--gin_file=gin/nowhere.gin", "--tpu=local", "--tpu_runtime=pjrt"])
    assert done == [("pjrt", "local"), "imported"]


def test_a_runtime_that_is_chosen_after_the_import_of_tensorflow_is_told(monkeypatch, caplog):
    import tensorflow  # noqa: F401  as a program that calls this one may do

    library = run.tpu_runtime.LIBRARY
    monkeypatch.setattr(run.jobs, "load", dict)
    monkeypatch.setenv(library, "")
    monkeypatch.setattr(
        run.tpu_runtime, "choose", lambda *asked: os.environ.update({library: "/x/libtpu.so"})
    )
    for _ in range(2):  # the second finds what the first has set
        run.main(["--gin_file=gin/nowhere.gin"])
    assert caplog.text.count("TensorFlow was imported before this runtime was chosen") == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TF_USE_LEGACY_KERAS": "1"}, "unset TF_USE_LEGACY_KERAS"),
        ({"KERAS_BACKEND": "jax"}, "jax"),
    ],
)
def test_another_keras_is_one_sentence_at_import(env, words):
    done = python("import simclr_tf", **env)
    last = done.stderr.strip().splitlines()[-1]
    assert (
        done.returncode != 0 and last.startswith("ImportError: simclr_tf needs") and words in last
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_passes_its_checks(recipe):
    from simclr_tf import config, jobs

    jobs.load()
    config.load([recipe], [])
    job = config.job_name(None, tuple(jobs.MODULES))
    config.check({job})
