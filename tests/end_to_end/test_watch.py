"""If this breaks, a run that is watched while it trains is disturbed, or its curve is not whole."""

import json
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
LAST = 31  # 24 images in batches of 8, 10 epochs: with a checkpoint every 4 steps


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The binding that names pictures in three colours, 24 to train on and 12 to test on."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 200, (16, 16, 3), np.uint8)
                pixels[..., channel] += 40
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return f"data.source = 'folder:{folder}'"


def wait_for(path, process, seconds=900):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None, f"{path} did not come"
        time.sleep(0.1)


def test_a_live_run_is_followed_to_its_end(tiny, source):
    watching = (source, "knn.k = 5", "watch.poll_seconds = 0.2")
    watch = tiny.start("live", *watching, job="watch")  # before there is a run
    training = tiny.start("live", source, "pretrain.keep_checkpoints = 20")
    folder = tiny.folder / "live"
    history = folder / "results" / "watch.jsonl"
    wait_for(history, watch)
    watch.send_signal(signal.SIGTERM)
    first, _ = watch.communicate(timeout=900)
    assert watch.returncode == 42, first
    assert history.exists() and "Traceback" not in first

    code, second = tiny.run("live", *watching, job="watch")
    assert code == 0 and f"step {LAST} is the run's last" in second, second
    output, _ = training.communicate(timeout=900)
    assert training.returncode == 0, output

    looked_at = [(x["step"], x["job"]) for x in map(json.loads, history.read_text().splitlines())]
    assert len(set(looked_at)) == len(looked_at) and sorted(looked_at) == looked_at
    steps = {step for step, _ in looked_at}
    gone = set(map(int, re.findall(r"step (\d+) is passed over", first + second)))
    saved = {*range(0, LAST, 4), LAST}
    assert LAST in steps and steps | gone <= saved and len(steps) >= 4
    halves = [step for step in steps if (step, "linear_eval") not in looked_at]
    assert len(halves) <= 1, "only the step at which SIGTERM came may lack an evaluation"
    assert "damaged" not in first + second
    assert not (folder / "features").exists()
