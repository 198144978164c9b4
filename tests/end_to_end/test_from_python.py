"""If this breaks, a program that calls run.main has its runs mixed up, or itself disturbed."""

import gc
import logging
import pathlib
import signal
import subprocess
import sys
import threading

import gin
import pytest
from absl import logging as absl_logging
from tensorflow.python.framework.func_graph import FuncGraph

from simclr_tf import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def in_a_thread(arguments) -> int:
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run.main(arguments)))
    thread.start()
    thread.join()
    [code] = codes
    return code


@pytest.mark.slow
def test_recipes_follow_each_other_in_any_thread_of_one_process(tiny, undisturbed, caplog):
    """The third run has the weights of the same recipe in a process of its own."""
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    other = ["nt_xent.temperature = 0.2", "pretrain.epochs = 1.0", "pretrain.seed = 3"]
    assert in_a_thread(tiny.arguments("in_a_thread", *other)) == 0
    caplog.clear()
    assert in_a_thread(tiny.arguments("same_in_a_thread")) == 0
    assert caplog.text.count("SIGTERM and Ctrl-C do not stop it in order") == 1
    assert run.main(tiny.arguments("in_the_main_thread")) == 0
    for name in ("same_in_a_thread", "in_the_main_thread"):
        tiny.check_weights(name, 31, undisturbed)
    assert "nt_xent.temperature = 0.2" in (tiny.folder / "in_a_thread/config.gin").read_text()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert gin.config_str() == "" and not gin.config_is_locked()


@pytest.mark.slow
def test_tensorflow_may_be_imported_in_a_thread_first(tiny):
    """The recipe is wrong, which the program says once TensorFlow is there."""
    program = (
        "import threading; from simclr_tf import run; codes = []\n"
        f"arguments = {tiny.arguments('never', 'pretrain.global_batch_size = 7.5')}\n"
        "thread = threading.Thread(target=lambda: codes.append(run.main(arguments)))\n"
        "thread.start(); thread.join(); print(codes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[2]", done.stderr
    assert "pretrain.global_batch_size must be" in done.stderr


def test_a_line_is_logged_once_however_often_a_run_is_started(tmp_path):
    for _ in range(3):
        assert run.main([f"--gin_file={tmp_path}/nowhere.gin"]) == 2
    assert absl_logging.get_absl_handler().filters.count(run._is_shown) == 1
    assert logging.getLogger().handlers.count(absl_logging.get_absl_handler()) == 1


def test_files_are_included_from_the_folder_of_this_recipe_only(tmp_path, monkeypatch):
    monkeypatch.setattr(run.jobs, "load", lambda: dict.fromkeys(run.jobs.MODULES, seen))
    monkeypatch.setattr("simclr_tf.config.check", lambda roots: None)
    found = []

    def seen(context):
        found.append(gin.query_parameter("run.job"))

    for name, job in (("first", "pretrain"), ("second", "knn")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "common_part.gin").write_text(f"run.job = '{job}'\n")
        (tmp_path / name / "mine.gin").write_text("include 'common_part.gin'\n")
        arguments = [f"--gin_file={tmp_path / name}/mine.gin", f"--model_dir={tmp_path}/m"]
        assert run.main(arguments) == 0
    assert found == ["pretrain", "knn"]


@pytest.mark.slow
def test_a_run_leaves_no_graph_behind(tiny):
    graphs = []
    for name in ("graphs_1", "graphs_2"):
        assert run.main(tiny.arguments(name, "pretrain.epochs = 1.0")) == 0
        gc.collect()
        graphs.append(sum(isinstance(o, FuncGraph) for o in gc.get_objects()))
    assert graphs[1] <= graphs[0], graphs


def test_a_second_run_at_the_same_time_is_refused(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(run, "_run", lambda values: codes.append(in_a_thread([])))
    assert run.main([]) == 0
    assert codes == [2] and "A process does one run at a time" in capsys.readouterr().err
