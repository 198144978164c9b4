"""If this breaks, methods are compared by steps that leave something out."""

import re

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.benchmark import methods
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.training.checkpoint_variables import PROBE_GROUP
from tests.support.small_resnet import SMALLEST_DEPTH

TINY = (
    "data.source = 'shapes'",
    "data.image_size = 16",
    f"resnet.depth = {SMALLEST_DEPTH}",
    "resnet.width_multiplier = 0.125",
    "pretrain.global_batch_size = 4",
    "pretrain.epochs = 0.01",
)


@pytest.fixture
def runs():
    jobs.load()
    found = {}
    for recipe in ("gin/base.gin", "gin/methods/moco_cifar10.gin"):
        own = ["moco.queue_size = 64", "moco.batch_norm_groups = 1"] if "moco" in recipe else []
        config.load([recipe], [*TINY, *own])
        found[recipe] = pretraining(jobs.Context(model_dir="", tpu="none"))
    return found


@pytest.mark.slow
def test_every_method_has_a_row_beside_the_first(runs):
    text = methods.measure(runs, rounds=1)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == list(runs)
    assert rows[0][2].startswith("1.00")
    assert all(re.match(r"[\d.,]+ \([\d.]+ to [\d.]+\)", row[3]) for row in rows)


def test_passes_are_those_of_all_networks(runs):
    """Gradients of the sum of all outputs; the keys of MoCo are passed beside, forward."""
    simclr, moco = runs.values()
    for run, seen in ((simclr, 8), (moco, 4)):  # both views of 4 images, or the first
        batch = methods.one_batch(run)
        encoder, head = run.method.networks.values()
        gradients, targets = methods._passes(run)(batch)
        with tf.GradientTape() as tape:
            h = encoder(batch["images"][:seen], training=True)["final_avg_pool"]
            z = list(head(h, training=True).values())[-1]
            total = tf.reduce_sum(h) + tf.reduce_sum(z)
        weights = [v.value for v in run.method.networks.trainable_variables]
        expected = tape.gradient(total, weights)
        scale = max(np.abs(value).max() for value in expected)
        for gradient, value in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, value, rtol=1e-3, atol=1e-4 * scale)
        assert list(targets) == (["index"] if run is simclr else ["keys"])
    assert targets["keys"].shape == (4, 128)


def test_the_memory_is_that_of_what_a_checkpoint_holds_but_for_the_probe(runs):
    for run in runs.values():
        groups = run.groups().items()
        saved = {name: group for name, group in groups if name not in ("probe", PROBE_GROUP)}
        held = [v.numpy().nbytes for group in saved.values() for v in group.values()]
        assert methods._variables_mib(run) * 2**20 == sum(held)
