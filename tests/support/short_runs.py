"""Runs of 12 steps on 30 pictures, and what they left in their folders."""

import functools
import json

import numpy as np
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.data.source import ArraySource
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.training.run import Run
from tests.support.small_resnet import SMALL_DEPTH

TOTAL = 12


@functools.cache
def pictures() -> ArraySource:
    """30 pictures of three classes."""
    rng, labels = np.random.default_rng(0), np.arange(30) % 3
    images = rng.integers(0, 128, (30, 16, 16, 3), np.uint8)
    images[np.arange(30), :, :, labels] += 128
    return ArraySource(
        name="pictures",
        num_examples=30,
        class_names=["red", "green", "blue"],
        images=images,
        labels=labels,
    )


def short_run(folder, runtime="tensorflow", **kwargs) -> Run:
    """Assembles a pretraining run on the pictures, with a report every 4 steps."""
    defaults = {
        "method": functools.partial(
            simclr, projection_head=functools.partial(projection_head, output_dim=8)
        ),
        "encoder": functools.partial(resnet, depth=SMALL_DEPTH, width_multiplier=0.125),
        "global_batch_size": 5,
        "epochs": 1.9,
        "precision": "float32",
        "steps_per_loop": 4,
    }
    return pretraining(
        Context(model_dir=str(folder), tpu="none", runtime=runtime),
        data=lambda data_dir: Dataset(
            "arrays", 16, "train", "test", 64, data_dir, opened=pictures()
        ),
        **(defaults | kwargs),
    )


def weights(folder, step):
    reader = tf.train.load_checkpoint(f"{folder}/checkpoints/step_{step:08d}/variables")
    names = [name for name in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in name]
    return {name: reader.get_tensor(name) for name in names}


def reports(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}
