"""If this breaks, one cell that crashes ends the study, or its message is lost."""

import os
import pathlib
import signal

import pytest

from simclr_tf.study.processes import Processes

pytestmark = pytest.mark.slow


def test_whatever_ends_a_run_is_its_exit_code_and_the_next_run_starts(tmp_path):
    log, claim = tmp_path / "log", tmp_path / "claim"
    claim.touch()
    train = ["--gin_file=gin/quickstart.gin", f"--model_dir={tmp_path / 'run'}", "--tpu=none"]

    def run(arguments, keep=lambda: True):
        return processes.run(arguments, log=log, claim=claim, keep=keep)

    def kill(child: bool) -> bool:
        worker = processes._worker.pid
        run = pathlib.Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        if run:  # the worker has been started, and has forked
            os.kill(int(run[0]) if child else worker, signal.SIGKILL)
        return True

    with Processes() as processes:
        assert run(["--help"]) == 0
        assert "Flags:" in log.read_text()
        assert run(["--gin_file=no.gin"]) == 2
        assert "error: The recipe does not load" in log.read_text()
        assert run(train, keep=lambda: kill(child=True)) == -signal.SIGKILL
        assert run(train, keep=lambda: kill(child=False)) == -signal.SIGKILL
        assert run(train, keep=lambda: False) in (42, -signal.SIGTERM)
        assert run(["--help"]) == 0
