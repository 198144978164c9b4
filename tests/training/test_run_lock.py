"""If this breaks, two runs write into one folder and spoil each other's checkpoints."""

import errno
import fcntl
import logging
import os
import subprocess
import sys

import pytest

from simclr_tf.errors import RequestError
from simclr_tf.training.run_lock import exclusive

HOLD = """
import sys, time
from simclr_tf.training.run_lock import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_once_and_free_again_afterwards(tmp_path):
    folder = str(tmp_path / "new")
    with (
        exclusive(folder),
        pytest.raises(RequestError, match=f"process {os.getpid()} on "),
        exclusive(folder),
    ):
        pass
    with exclusive(folder):
        assert os.listdir(folder) == ["checkpoints"]


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with exclusive(str(tmp_path)):
        assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), exclusive(str(tmp_path)):
        assert "No locks available" in caplog.text


def test_a_full_disk_is_one_clear_error(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").symlink_to("/dev/full")
    with pytest.raises(RequestError, match="have room"), exclusive(str(tmp_path)):
        pass


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RequestError, match=f"process {process.pid}"), exclusive(str(tmp_path)):
        pass
    process.kill()
    process.wait()
    with exclusive(str(tmp_path)):
        pass
