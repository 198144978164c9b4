"""A tiny run in a process of its own, as a person starts it."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# 24 images in batches of 8: 31 steps in 10 epochs, with a checkpoint every 4.
TINY = """
include 'gin/base.gin'
data.source = 'folder:'
data.image_size = 16
resnet.depth = 18
resnet.width_multiplier = 0.125
projection_head.output_dim = 16
augmentation.policy = [('flip', 0.5), ('color_jitter', 0.8, 0.5)]
nt_xent.temperature = 0.5
pretrain.global_batch_size = 8
pretrain.epochs = 10.0
pretrain.precision = 'float32'
pretrain.steps_per_loop = 2
pretrain.checkpoint_every_steps = 4
"""


class Tiny:
    """Starts runs of the tiny recipe on a folder of photos without labels."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.photos = folder / "photos"
        self.photos.mkdir()
        rng = np.random.default_rng(0)
        for i in range(24):
            pixels = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(self.photos / f"{i:02d}.png")
        self.recipe = folder / "tiny.gin"
        self.recipe.write_text(TINY)

    def command(
        self, model_dir: str, *bindings: str, job=None, recipe=None, data=None, fault=None
    ) -> list[str]:
        """What starts the program, or (see there) `faulty.py` with a fault in it."""
        return [
            sys.executable,
            *((str(HERE / "faulty.py"), fault) if fault else ("-m", "simclr_tf.run")),
            f"--gin_file={recipe or self.recipe}",
            f"--data_dir={data or self.photos}",
            f"--model_dir={self.folder / model_dir}",
            "--tpu=none",
            *(f"--gin_bindings={b}" for b in bindings),
            *([f"--job={job}"] if job else []),
        ]

    def start(self, model_dir: str, *bindings: str, env=None, **kwargs) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(model_dir, *bindings, **kwargs),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
        )

    def run(self, model_dir: str, *bindings: str, **kwargs) -> tuple[int, str]:
        process = self.start(model_dir, *bindings, **kwargs)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def start_pair(self, model_dir: str, *bindings: str) -> list[subprocess.Popen]:
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
            self.start(model_dir, *bindings, env={"TF_CONFIG": json.dumps(task)}) for task in tasks
        ]

    def wait_for_step(self, model_dir, step, process, seconds=300) -> None:
        """Waits until the run has reported `step`."""
        path = self.folder / model_dir / "metrics.jsonl"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            lines = path.read_text().splitlines() if path.exists() else []
            if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
                return
            time.sleep(0.05)
        raise AssertionError(f"step {step} was not reached")

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
