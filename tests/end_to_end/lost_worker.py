"""A TPU slice on loopback whose worker dies: the real TPUStrategy over cores that do not exist.

    python lost_worker.py WHAT FOLDER PORT PORT

is the coordinator, which prints `ready` and goes on until a worker is gone; then it exits as the
program would. WHAT is one of

steps    the outer loop of training, whose steps take a batch from the servers and learn nothing
reading  reads a variable of the second worker, as a checkpoint's copy does
restore  restores it
"""

import collections
import os
import sys
import types

import keras
import numpy as np
import tensorflow as tf

from simclr_tf.data.bad_images import BadImages
from simclr_tf.errors import RunError
from simclr_tf.jobs import trainer
from simclr_tf.jobs.training import Training
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.host_copy import copy_to_host
from simclr_tf.training.interrupt import peer
from simclr_tf.training.loop import LoopResult
from simclr_tf.training.mishaps import steps_checked
from tests.support.tpu_slice import HOSTS, connect

Source = collections.namedtuple("Source", "num_examples")


class Pipeline:
    """Batches without end."""

    source = Source(num_examples=1000)
    bad_images = BadImages(source)

    def dataset(self, host, start_step):
        return tf.data.Dataset.counter().map(lambda i: {"index": i[None]})


def fetching(strategy, train_step, names):
    """Stands for the inner loop: takes a batch a step, inside the servers."""

    @tf.function
    def fetch(batches, steps):
        for _ in tf.range(steps):
            next(batches)

    def run_steps(batches, steps):
        fetch(batches, tf.constant(steps))
        return LoopResult({"loss": 1.0}, None, 0.0)

    return run_steps


def steps(strategy: tf.distribute.Strategy, folder: str) -> None:
    # The cores are not there to be fed, so that batches stay on the CPUs.
    options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
    distribute = strategy.distribute_datasets_from_function
    strategy.distribute_datasets_from_function = lambda f: distribute(f, options)
    trainer.make_loop = fetching
    trainer.figures.first_views = lambda pipeline: None
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD()
    optimizer.build(network.trainable_variables)
    run = Training(
        model_dir=os.path.join(folder, "run"),
        strategy=strategy,
        job="none",
        plan={"job": "none"},
        pipeline=Pipeline(),
        networks={"network": network},
        optimizer=optimizer,
        schedule=WarmupCosine(0.1, 0, 10**7),
        train_step=lambda batch: None,
        metric_names=("loss",),
        chance=1.0,
        words=lambda numbers: "ready",
        settings={},
        global_batch_size=2,
        steps_per_loop=100,
        checkpoint_every_steps=10**6,
        checkpoint_every_minutes=None,
        keep_checkpoints=1,
    )
    trainer.train(run, export=lambda: "")


def again_and_again(strategy: tf.distribute.Strategy, folder: str, what: str) -> None:
    with tf.device(HOSTS[1] + "/device:CPU:0"):
        variable = tf.Variable(np.ones(3, np.float32))
    checkpoint = tf.train.Checkpoint(variable=variable)
    prefix = checkpoint.write(os.path.join(folder, "variable"))
    groups = {"group": {"variable": types.SimpleNamespace(value=variable)}}
    work = {
        "reading": lambda: copy_to_host(groups),
        "restore": lambda: checkpoint.read(prefix),
    }[what]
    copy = copy_to_host(groups)["group"]["variable"]
    assert "/job:worker" not in copy.device, copy.device
    print("ready", flush=True)
    with steps_checked(folder, peer=peer(strategy)):
        while True:
            work()


def coordinate(what: str, folder: str, *ports: str) -> None:
    strategy = connect(ports)
    try:
        if what == "steps":
            steps(strategy, folder)
        again_and_again(strategy, folder, what)
    except RunError as error:
        print(f"error: {error}", flush=True)
        os._exit(error.exit_code)  # TensorFlow would wait for the worker in vain


if __name__ == "__main__":
    coordinate(*sys.argv[1:])
