"""A SavedModel as a run leaves it behind, and processes that do not have this package."""

import os
import subprocess
import sys
import textwrap
import types

import keras
import numpy as np
import pytest

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.export.saved_model import export_networks
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet

SIZE = 16
CLASS_NAMES = ["circle", "square", "star"]


def build_networks():
    """Encoder, projection head, and a classifier as fine-tuning from the head's middle has it."""
    h = keras.Input((64,), name="representation")
    x = keras.layers.Dense(24, use_bias=False, name="projection_1_dense")(h)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="projection_1_bn")(x))
    classifier = keras.Model(h, keras.layers.Dense(len(CLASS_NAMES), name="logits")(x))
    return {
        "encoder": resnet(18, 0.125, image_size=SIZE, remat=(2,)),
        "projection_head": projection_head(input_dim=64, output_dim=16),
        "classifier": classifier,
    }


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A SavedModel of networks on two replicas, none of whose weights is an initial one.

    One block group of the encoder is rematerialized.
    """
    with simulated_replicas(2).scope():
        networks = build_networks()
    rng = np.random.default_rng(0)
    for network in networks.values():
        for variable in network.variables:
            noise = rng.normal(0, 0.1, variable.shape)
            positive = variable.path.endswith(("gamma", "moving_variance"))
            variable.assign(0.5 + np.abs(noise) if positive else variable.numpy() + noise)
    folder = export_networks(
        str(tmp_path_factory.mktemp("run")),
        7,
        networks,
        build_networks,
        image_size=SIZE,
        recipe="run.job = 'pretrain'\n",
        class_names=CLASS_NAMES,
    )
    images = rng.random((4, SIZE, SIZE, 3)).astype(np.float32)
    representation = networks["encoder"](images, training=False)["final_avg_pool"].numpy()
    return types.SimpleNamespace(
        folder=folder, networks=networks, images=images, representation=representation
    )


@pytest.fixture(scope="session")
def run_elsewhere():
    """Runs a program, or a command, in a process that cannot import simclr_tf; returns stdout."""

    def run(program=None, *, command=None, cwd="/"):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        hidden = "import sys\nsys.modules['simclr_tf'] = None\n"
        command = command or [sys.executable, "-c", hidden + textwrap.dedent(program)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
