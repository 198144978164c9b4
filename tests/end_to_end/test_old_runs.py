"""If this breaks, an update of the package ends the runs and the models of its users."""

import json
import pathlib
import shlex
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run
from simclr_tf.export.loading import load_encoder

pytestmark = pytest.mark.slow
OLD_RUNS = pathlib.Path(__file__).resolve().parents[1] / "old_runs"
# Other processors sum in another order. On one kind the numbers are equal to the bit.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=sorted(folder.name for folder in OLD_RUNS.iterdir()))
def old_run(request, tmp_path, monkeypatch):
    """The folder of test data; the run itself is `run` in the working directory."""
    shutil.unpack_archive(OLD_RUNS / request.param / "run.tar.xz", tmp_path)
    monkeypatch.chdir(tmp_path)
    return OLD_RUNS / request.param


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def test_the_same_command_resumes_a_run_of_an_older_version(old_run, capsys):
    before = lines("run/metrics.jsonl")
    [start] = json.loads(pathlib.Path("run/run.json").read_text())["starts"]
    assert run.main(shlex.split(start["command"])[3:]) == 0
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert [s["step"] for s in record["starts"]] == [0, 3] and record["starts"][0] == start
    metrics = lines("run/metrics.jsonl")
    assert metrics[:3] == before and [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    expected = json.loads((old_run / "expected.json").read_text())
    # Not on every system, and no number of a step any more.
    gone = {"host_memory_mib", "temperature"}
    assert metrics[-1].keys() >= expected.keys() - gone
    # Since then the online probe has a rule of its own, so it begins again.
    assert (
        "the probe begins with its initial values again, and everything else resumes"
        in capsys.readouterr().out
    )
    for name in ("contrastive_loss", "gradient_norm", "learning_rate"):
        np.testing.assert_allclose(metrics[-1][name], expected[name], **CLOSE, err_msg=name)
    reader = tf.train.load_checkpoint("run/checkpoints/step_00000006/variables")
    weights = np.load(old_run / "expected.npz")
    names = {n for n in weights.files if not n.startswith(("images", "representation", "probe/"))}
    assert len(names) > 100
    for name in names:
        found = reader.get_tensor(name)
        assert np.isfinite(found).all(), name
        np.testing.assert_allclose(found, weights[name], **CLOSE, err_msg=name)


def test_a_saved_model_of_an_older_version_gives_the_same(old_run):
    arrays = np.load(old_run / "expected.npz")
    images = tf.constant(arrays["images"])
    served = tf.saved_model.load("run/saved_model/3")(images)
    np.testing.assert_allclose(served, arrays["representation"], rtol=1e-4, atol=1e-5)
    encoder = load_encoder("run/saved_model/3", trainable=False)
    found = encoder(images, training=False)
    np.testing.assert_allclose(found, arrays["representation"], rtol=1e-4, atol=1e-5)
