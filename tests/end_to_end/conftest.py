"""Tiny runs, each in a process of its own."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.program import Program
from tests.support.small_resnet import SMALL_DEPTH, SMALLEST_DEPTH

ROOT = pathlib.Path(__file__).resolve().parents[2]

# 24 images in batches of 8: 31 steps in 10 epochs, with a checkpoint every 4.
TINY = """
include 'gin/base.gin'
data.source = 'folder:'
data.image_size = 16
resnet.depth = {depth}
resnet.width_multiplier = 0.125
projection_head.output_dim = 16
augmentation.policy = [('flip', 0.5), ('grayscale', 0.3)]
nt_xent.temperature = 0.5
pretrain.global_batch_size = 8
pretrain.epochs = 10.0
pretrain.precision = 'float32'
pretrain.steps_per_loop = 2
pretrain.checkpoint_every_steps = 4
"""


class Tiny:
    """Starts runs of the tiny recipe on a folder of photos without labels.

    Attributes:
      recipe: of the smallest network, which the runs have whose network does not matter.
      small: the same with a network that XLA compiles too, whose last group is not packed.
      resnet_18: the same with a ResNet-18.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.photos = folder / "photos"
        self.photos.mkdir()
        rng = np.random.default_rng(0)
        for i in range(24):
            pixels = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(self.photos / f"{i:02d}.png")
        self.recipe, self.small, self.resnet_18 = (
            folder / f"{name}.gin" for name in ("tiny", "small", "resnet_18")
        )
        self.recipe.write_text(TINY.format(depth=SMALLEST_DEPTH))
        self.small.write_text(TINY.format(depth=SMALL_DEPTH))
        self.resnet_18.write_text(TINY.format(depth=18))

    def arguments(
        self, model_dir: str, *bindings: str, job=None, recipe=None, data=None, runtime=None
    ) -> list[str]:
        """Returns the arguments of the command line."""
        return [
            f"--gin_file={recipe or self.recipe}",
            f"--data_dir={data or self.photos}",
            f"--model_dir={self.folder / model_dir}",
            "--tpu=none",
            *(f"--gin_bindings={b}" for b in bindings),
            *([f"--job={job}"] if job else []),
            *([f"--runtime={runtime}"] if runtime else []),
        ]

    def start(self, model_dir: str, *bindings: str, env=None, fault=None, **kwargs) -> Program:
        """Starts a run, with what `faults.py` injects."""
        return Program(self.arguments(model_dir, *bindings, **kwargs), fault, env or {})

    def run_as_a_person_does(self, model_dir: str, *bindings: str, **kwargs) -> tuple[int, str]:
        """Runs the command that README gives."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "simclr_tf.run",
                *self.arguments(model_dir, *bindings, **kwargs),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
        )
        return done.returncode, done.stdout

    def run(self, model_dir: str, *bindings: str, **kwargs) -> tuple[int, str]:
        process = self.start(model_dir, *bindings, **kwargs)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def start_pair(
        self, model_dir: str, *bindings: str, faults: Sequence[str | None] = (None, None), **kwargs
    ) -> list[Program]:
        """Two workers that train together."""
        ports = []
        for _ in range(2):
            with socket.socket() as s:
                s.bind(("localhost", 0))
                ports.append(s.getsockname()[1])
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        tasks = [
            {"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)
        ]
        return [
            self.start(
                model_dir, *bindings, env={"TF_CONFIG": json.dumps(task)}, fault=fault, **kwargs
            )
            for task, fault in zip(tasks, faults, strict=True)
        ]

    def wait_for_step(self, model_dir, step, process, seconds=900) -> None:
        """Waits until a run, which must not be over soon after, has reported `step`."""
        path = self.folder / model_dir / "metrics.jsonl"
        deadline = time.monotonic() + seconds
        while True:
            over = process.poll() is not None or time.monotonic() > deadline
            lines = path.read_text().splitlines() if path.exists() else []
            if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
                return
            assert not over, f"step {step} was not reached"
            time.sleep(0.05)

    def weights(self, model_dir: str, step: int) -> dict[str, np.ndarray]:
        prefix = self.folder / model_dir / "checkpoints" / f"step_{step:08d}" / "variables"
        reader = tf.train.load_checkpoint(str(prefix))
        names = [n for n in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in n]
        return {name: reader.get_tensor(name) for name in names}

    def steps(self, model_dir: str) -> list[int]:
        """Those of the complete checkpoints."""
        folders = (self.folder / model_dir / "checkpoints").glob("step_*")
        return sorted(int(f.name[5:]) for f in folders if (f / "manifest.json").exists())

    def go_on(self, model_dir: str, expected, *bindings: str, **kwargs) -> str:
        """Starts the run again, which must end with the weights of an undisturbed one."""
        code, output = self.run(model_dir, *bindings, **kwargs)
        assert code == 0, output
        self.check_weights(model_dir, max(self.steps(model_dir)), expected)
        return output

    def stopped_by(self, model_dir: str, code: int, words: str, *bindings: str, **kwargs) -> None:
        """Starts a run that a fault must end with `code` and one message that says `words`."""
        found, output = self.run(model_dir, *bindings, **kwargs)
        assert found == code, output
        error = output[output.index("error: ") :]
        assert words in error and "Traceback" not in output, output

    def check_weights(self, model_dir: str, step: int, expected: dict[str, np.ndarray]) -> None:
        """Asserts that the run has these weights, bit for bit."""
        found = self.weights(model_dir, step)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def injected(record_property):
    """Notes a fault, how many times it was injected, and what came of it, for the table."""
    return lambda *row: record_property("fault", row)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(tiny) -> dict[str, np.ndarray]:
    """The final weights of the run `undisturbed`, which nothing interrupted."""
    code, output = tiny.run("undisturbed")
    assert code == 0, output
    return tiny.weights("undisturbed", 31)


@pytest.fixture(scope="session")
def resnet_18(tiny) -> dict[str, np.ndarray]:
    """The final weights of the run `resnet_18`, which was started as a person starts it."""
    code, output = tiny.run_as_a_person_does("resnet_18", recipe=tiny.resnet_18)
    assert code == 0, output
    return tiny.weights("resnet_18", 31)


@pytest.fixture
def small_disk(tiny):
    """Mounts a small file system below the runs' folder; yields what changes its options."""
    folder = tiny.folder / "disk"
    folder.mkdir(exist_ok=True)

    def mount(options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        ).returncode

    if mount("size=200k"):  # less than all that a run writes, more than a checkpoint
        pytest.skip("mounting a file system needs root")
    yield lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", str(folder)], check=True)
