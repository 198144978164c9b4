"""If this breaks, a study that was killed or shared ends with other numbers than undisturbed.

The program is one that extends this one, as docs/extending.md has it: its networks are tiny.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.small_resnet import SMALLEST_DEPTH

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST = 31  # 24 images in batches of 8, 10 epochs

RECIPE = f"""
include 'gin/base.gin'
run.job = 'study'
study.axes = {{
    'temperature': {{
        '0.1': ['nt_xent.temperature = 0.1'],
        '0.5': ['nt_xent.temperature = 0.5'],
    }},
}}
study.seeds = (0, 1)
study.evaluations = [@knn]
study.measure = 'knn top1'
knn.k = 5
data.source = 'folder:'
data.image_size = 16
resnet.depth = {SMALLEST_DEPTH}
resnet.width_multiplier = 0.125
projection_head.output_dim = 16
augmentation.policy = [('flip', 0.5), ('grayscale', 0.3)]
pretrain.global_batch_size = 8
pretrain.epochs = 10.0
pretrain.precision = 'float32'
pretrain.steps_per_loop = 2
pretrain.checkpoint_every_steps = 4
"""
PROGRAM = """
import sys
from simclr_tf import jobs
from simclr_tf.run import main
jobs.EXTENSIONS += ["smallest"]
sys.exit(main())
"""
EXTENSION = "from tests.support import small_resnet\nsmall_resnet.register_small_depths()\n"


class Studies:
    """Starts the program on labelled pictures in a folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        rng = np.random.default_rng(0)
        for split, count in (("train", 12), ("test", 6)):
            for name, low in (("dark", 0), ("light", 60)):
                place = folder / "photos" / split / name
                place.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(low, low + 190, (16, 16, 3), np.uint8)
                    Image.fromarray(pixels).save(place / f"{i}.png")
        for name, text in (
            ("study.gin", RECIPE),
            ("program.py", PROGRAM),
            ("smallest.py", EXTENSION),
        ):
            (folder / name).write_text(text)

    def start(self, model_dir: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [
                sys.executable,
                self.folder / "program.py",
                f"--gin_file={self.folder / 'study.gin'}",
                f"--data_dir={self.folder / 'photos'}",
                f"--model_dir={self.folder / model_dir}",
                "--tpu=none",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def ended(self, process: subprocess.Popen) -> str:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        return output

    def claimed_and_training(self, model_dir: str, process: subprocess.Popen) -> pathlib.Path:
        """Waits until a process trains a cell, and returns that cell's folder."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            for claim in (self.folder / model_dir).glob("status/*seed-?.[0-9]*"):
                cell = self.folder / model_dir / "cells" / claim.stem
                if f'"process": {process.pid}}}' in read(claim):
                    steps = [
                        json.loads(x)["step"] for x in read(cell / "metrics.jsonl").split("\n")[:-1]
                    ]
                    if steps and 6 <= max(steps) < LAST - 6:
                        return cell
            time.sleep(0.02)
        raise AssertionError("no cell trains")


def read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def kill_all(process: subprocess.Popen) -> None:
    """Ends a study and everything that it has started as a lost machine does."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    process.kill()
    for child in map(int, children.split()):
        os.killpg(child, signal.SIGKILL)
    process.communicate()


def end_of(cell: pathlib.Path) -> tuple[dict, dict[str, bytes]]:
    """Returns the numbers of a cell's evaluation, and its last weights."""
    reader = tf.train.load_checkpoint(str(cell / f"checkpoints/step_{LAST:08d}/variables"))
    names = [n for n in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in n]
    numbers = json.loads((cell / "results" / "knn.json").read_text())["numbers"]
    return numbers, {name: reader.get_tensor(name).tobytes() for name in names}


def starts(cell: pathlib.Path) -> int:
    return len(json.loads((cell / "run.json").read_text())["starts"])


def test_killed_shared_and_resumed_equals_undisturbed_and_plain_commands(tmp_path):
    studies = Studies(tmp_path)
    listed = studies.ended(studies.start("alone", "--gin_bindings=study.list = True"))
    lines = [line for line in listed.splitlines() if line.startswith("python ")]
    assert len(lines) == 4
    # The first cell by its plain command, the others by a study that nothing disturbs.
    done = subprocess.run(
        ["bash", "-c", lines[0].replace("python ", f"{sys.executable} ")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 4 cells are finished" in studies.ended(studies.start("alone"))

    first, second = (studies.start("shared") for _ in range(2))
    killed = studies.claimed_and_training("shared", first)
    kill_all(first)
    third = studies.start("shared")
    outputs = [studies.ended(process) for process in (second, third)]

    cells = sorted((tmp_path / "alone" / "cells").iterdir())
    assert len(cells) == 4
    for cell in cells:
        same = tmp_path / "shared" / "cells" / cell.name
        assert end_of(same) == end_of(cell), cell.name
        assert starts(same) == (2 if same == killed else 1), outputs
    table = (tmp_path / "alone" / "results" / "study.csv").read_text()
    assert (tmp_path / "shared" / "results" / "study.csv").read_text() == table
    assert table.count("2 of 2") == 2
