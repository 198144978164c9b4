"""If this breaks, every start begins with lines that mean nothing, or hides those that do."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Writes what TensorFlow's libraries write while they load, in place of TensorFlow.
PROGRAM = """
import os, sys
sys.path.insert(0, {folder!r})
from simclr_tf.tensorflow_start import import_tensorflow
try:
    import_tensorflow()
except ImportError as error:
    print("not there:", error, file=sys.stderr)
print("afterwards", file=sys.stderr)
"""
INFO = "I0000 00:00:1795764437.822480   12014 port.cc:153] oneDNN custom operations are on."
WARNING = "W0000 00:00:1795764437.822480   12014 gpu.cc:1] Cannot dlopen some GPU libraries."
ERROR = "E0000 00:00:1795764437.822480   12014 cuda.cc:1] This must be seen."
NOISE = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"


def start(tmp_path, *lines, then="", **env):
    """Ends of a process whose module `tensorflow` writes these lines, and does this."""
    text = "".join(f"{line}\n" for line in (NOISE, *lines))
    (tmp_path / "tensorflow.py").write_text(f"import os\nos.write(2, {text.encode()!r})\n{then}\n")
    kept = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | env,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({}, [ERROR, "other words", "afterwards"]),
        ({"TF_CPP_MIN_LOG_LEVEL": "1"}, [WARNING, ERROR, "other words", "afterwards"]),
        (
            {"TF_CPP_MIN_LOG_LEVEL": "0"},
            [NOISE, INFO, WARNING, ERROR, "other words", "afterwards"],
        ),
    ],
)
def test_lines_below_the_level_are_hidden_and_others_shown(tmp_path, env, shown):
    found = start(tmp_path, INFO, WARNING, ERROR, "other words", **env)
    assert found == (0, shown)


def test_words_without_a_last_newline_are_shown(tmp_path):
    assert start(tmp_path, INFO, then="os.write(2, b'end ')") == (0, ["end afterwards"])


def test_an_import_that_fails_shows_all(tmp_path):
    code, lines = start(tmp_path, INFO, then="raise ImportError('no AVX')")
    assert code == 0 and {NOISE, INFO, "not there: no AVX", "afterwards"} == set(lines)


def test_a_process_that_ends_while_it_imports_shows_all(tmp_path):
    code, lines = start(tmp_path, INFO, then="os.abort()")
    assert code == -signal.SIGABRT and lines == [NOISE, INFO]


def test_a_start_of_the_program_says_nothing_but_its_own_messages():
    kept = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "simclr_tf.run"),
            "--gin_bindings=pretrain.loss = @nt_xent",  # a name that was renamed
            "--gin_bindings=pretrain.epochs = 'x'",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=kept,
        timeout=300,
    )
    assert done.returncode == 2
    renamed, error = done.stderr.splitlines()
    assert renamed.startswith("W") and "pretrain.loss is called simclr.loss by now" in renamed
    assert error.startswith("error: pretrain.epochs must be float")
