"""If this breaks, who follows docs/extending.md ends with an error."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from simclr_tf.export.loading import load_encoder

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text()
LONGEST = 60

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The document's files, and arrays to train on."""
    folder = tmp_path_factory.mktemp("extending")
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        name = re.match(r"# (\w+\.py)\n", block)[1]
        (folder / name).write_text(block)
        assert len(block.splitlines()) < LONGEST, name
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        (folder / "ARRAYS").mkdir(exist_ok=True)
        images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
        np.savez(folder / "ARRAYS" / split, images=images, labels=np.arange(count) % 3)
    return folder


def test_the_commands_of_the_document_run(folder):
    [block] = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    for _, *arguments in commands:
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, timeout=900)
    run = folder / "runs" / "simsiam"
    [*_, last] = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert last["step"] == 4 and -1 <= last["cosine_loss"] <= 1 and last["loss_chance"] == 0
    recorded = (run / "config.gin").read_text()
    assert "@simsiam" in recorded and "('invert', 0.2, 0.8)" in recorded

    encoder = load_encoder(str(run / "saved_model" / "4"), trainable=False)
    assert encoder(np.zeros([1, 16, 16, 3], np.float32)).shape == (1, 64)
    result = json.loads((run / "results" / "uniformity.json").read_text())
    [values] = (run / "features").glob("*/values.npy")
    h = np.load(values).astype(np.float64)
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(unit) for b in unit[:i]]
    expected = np.log(np.mean(np.exp(-2 * np.array(pairs))))
    assert result["numbers"]["uniformity"] == pytest.approx(expected, rel=1e-3)
