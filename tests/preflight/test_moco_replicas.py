"""If this breaks, on a pod MoCo mixes up keys, or groups other images for batch normalization."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.methods.moco import moco
from simclr_tf.models.heads import plain_projection_head
from simclr_tf.optim.factory import sgd_l2
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.step import make_train_step
from tests.methods import conformance
from tests.preflight.test_replicas import (
    REPLICAS,
    SIZE,
    STEPS,
    check_losses,
    on_one_device,
    on_replicas,
)

pytest.importorskip("jax", reason="needs the extra [preflight]")


def build(groups: int, rate: float, precision: str) -> SimpleNamespace:
    """MoCo with a queue of one batch of random keys and of some more."""
    keras.utils.set_random_seed(0)
    with dtype_policy(precision):
        method = moco(
            augmentation=conformance.AUGMENTATION,
            projection_head=functools.partial(plain_projection_head, output_dim=8),
            queue_size=48,
            momentum=0.5,
            batch_norm_groups=groups,
            encoder=conformance.tiny_encoder,
            image_size=SIZE,
        )
    optimizer = sgd_l2(learning_rate=WarmupCosine(rate, 0, 10), networks=method.networks)
    optimizer.build(method.networks.trainable_variables)
    variables = [*method.networks.variables, *method.state.values()]
    return SimpleNamespace(
        step=lambda: make_train_step(method, optimizer),
        networks=SimpleNamespace(variables=variables),
        optimizer=optimizer,
    )


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 16])
def test_eight_replicas_are_one_device(groups, tmp_path):
    """A group is of four replicas, or a replica has two groups; the queue tells of the keys."""
    build_tiny = functools.partial(build, groups)
    expected_numbers, (start, *expected) = on_one_device(build_tiny, "float32")
    numbers, values = on_replicas(build_tiny, "float32", range(REPLICAS), tmp_path)
    check_losses(numbers, expected_numbers, 1e-4)
    for path, copies in values[STEPS - 1].items():
        assert all(np.array_equal(copies[0], copy) for copy in copies), path
        value = expected[STEPS - 1][path]
        error = np.linalg.norm(copies[0] - value)
        assert error < 1e-3 * (np.linalg.norm(value) + 0.1), path
    assert {"queue", "batches"} <= values[0].keys()
    assert not np.allclose(expected[-1]["queue"], start["queue"], atol=0.1)
