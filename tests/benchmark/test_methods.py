"""If this breaks, methods are compared by steps that leave something out."""

import re

import numpy as np
import pytest

from simclr_tf import config, jobs
from simclr_tf.benchmark import methods
from simclr_tf.jobs.pretrain import pretraining
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
        own = ["moco.queue_size = 64", "moco.batch_norm_groups = 2"] if "moco" in recipe else []
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


def test_passes_have_gradients_of_all_that_is_embedded(runs):
    """Those of the sum of all outputs; the keys of MoCo are passed beside, forward."""
    for run in runs.values():
        batch = methods.one_batch(run)
        gradients, targets = methods._passes(run)(batch)
        learned = run.method.networks.trainable_variables
        assert len(gradients) == len(learned)
        assert any(np.abs(gradient).max() > 0 for gradient in gradients)
        assert set(targets) == set(run.method.targets(batch))
