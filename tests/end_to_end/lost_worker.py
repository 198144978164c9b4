"""A TPU slice on loopback whose worker dies: the real TPUStrategy over cores that do not exist.

    python lost_worker.py WHAT FOLDER PORT PORT

is the coordinator, which prints `ready` and goes on until a worker is gone; then it exits as the
program would. WHAT is one of

steps    the outer loop of training, whose steps take a batch from the servers and learn nothing
reading  reads a variable of the second worker, as a checkpoint's copy does
restore  restores it
"""

import dataclasses
import os
import sys
import types

import keras
import numpy as np
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.source import Source
from simclr_tf.errors import RunError
from simclr_tf.methods.base import Method
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training import runtime, trainer
from simclr_tf.training.failures import explain_step_errors
from simclr_tf.training.host_copy import copy_to_host
from simclr_tf.training.loop import LoopResult
from simclr_tf.training.plan import Plan
from simclr_tf.training.preemption import peer
from simclr_tf.training.run import Cadence, Run
from simclr_tf.training.stages import Stage
from tests.support.tpu_slice import HOSTS, connect
from tests.support.views import pairs


@dataclasses.dataclass(frozen=True)
class Nothing(Method):
    """Stands for a method; its steps are not run."""

    name = "nothing"
    metrics = (Metric("loss"),)

    def embed(self, batch, training):
        raise NotImplementedError

    loss = embed

    def words(self, numbers):
        return "ready"


class Pipeline:
    """Batches without end."""

    groups = ()
    source = Source(name="none", num_examples=1000, class_names=None)
    bad_images = BadImages(source)

    def dataset(self, host, start_step):
        return tf.data.Dataset.counter().map(lambda i: {"index": i[None]})

    def with_views(self, batch):
        return batch


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
    runtime.make_loop = fetching
    trainer.figures.first_views = lambda pipeline: None
    image = keras.Input((2,))
    networks = Networks({"encoder": keras.Model(image, keras.layers.Dense(1)(image))})
    method = Nothing(networks, pairs(augmentation(policy=()), 8))
    optimizer = keras.optimizers.SGD()
    optimizer.build(method.networks.trainable_variables)
    schedule = WarmupCosine(0.1, 0, 10**7)
    stages = [Stage(schedule.total_steps, Pipeline())]
    run = Run(
        job="none",
        model_dir=os.path.join(folder, "run"),
        strategy=strategy,
        plan=Plan.of(
            strategy=strategy,
            schedule=schedule,
            optimizer=optimizer,
            source=Pipeline.source,
            image_size=1,
            global_batch_size=2,
            epochs=1.0,
            precision="float32",
            stages=stages,
        ),
        method=method,
        probe=None,
        optimizer=optimizer,
        schedule=schedule,
        settings={},
        cadence=Cadence(
            steps_per_loop=100,
            checkpoint_every_steps=10**6,
            checkpoint_every_minutes=None,
            keep_checkpoints=1,
        ),
        rebuild=lambda: method,
        when_out_of_memory="",
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
    with explain_step_errors(folder, peer=peer(strategy), when_out_of_memory=""):
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
