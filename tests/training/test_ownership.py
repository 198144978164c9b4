"""If this breaks, two runs write into one folder and spoil each other's checkpoints."""

import os
import subprocess
import sys

import pytest

from simclr_tf.errors import RequestError
from simclr_tf.training.ownership import exclusive

HOLD = """
import sys, time
from simclr_tf.training.ownership import exclusive
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
