"""A tiny run in a process of its own, as a person starts it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]

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

    def command(self, model_dir: str, *bindings: str, job=None, recipe=None) -> list[str]:
        return [
            sys.executable,
            *("-m", "simclr_tf.run"),
            f"--gin_file={recipe or self.recipe}",
            f"--data_dir={self.photos}",
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
            env=os.environ | (env or {}),
        )

    def run(self, model_dir: str, *bindings: str, **kwargs) -> tuple[int, str]:
        process = self.start(model_dir, *bindings, **kwargs)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def weights(self, model_dir: str, step: int) -> dict[str, np.ndarray]:
        prefix = self.folder / model_dir / "checkpoints" / f"step_{step:08d}" / "variables"
        reader = tf.train.load_checkpoint(str(prefix))
        names = [n for n in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in n]
        return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(tiny) -> dict[str, np.ndarray]:
    """The final weights of the run `undisturbed`, which nothing interrupted."""
    code, output = tiny.run("undisturbed")
    assert code == 0, output
    return tiny.weights("undisturbed", 31)
