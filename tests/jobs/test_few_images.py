"""If this breaks, a training of two steps gives a result as if it meant something."""

import dataclasses
import re
import types

import pytest

from simclr_tf.jobs import few_images
from simclr_tf.optim.schedules import steps_for


def advised(text):
    """The bindings that a message holds, by name."""
    found = re.findall(r"--gin_bindings='train_classifier\.(\w+) = ([\d.]+)'", text)
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize("num_replicas", [1, 3, 8])
@pytest.mark.parametrize("epochs", [0.5, 30.0, 60.0, 90.0])
@pytest.mark.parametrize("num_images", [8, 10, 40, 100, 333, 3000, 10**6])
def test_the_advice_is_valid_and_takes_enough_steps(num_images, epochs, num_replicas):
    found = advised(few_images.advice(num_images, epochs, num_replicas))
    batch = int(found["global_batch_size"])
    assert 1 <= batch <= min(num_images, 256) and batch % num_replicas == 0
    steps = steps_for(found.get("epochs", epochs), num_images, batch)
    assert steps >= 100
    assert "epochs" not in found or steps_for(epochs, num_images, batch) < 100


@pytest.mark.parametrize(
    ("num_images", "batch"), [(40, 8), (100, 16), (333, 64), (3000, 256), (10**6, 256)]
)
def test_batches_are_powers_of_two_that_divide_an_epoch_into_steps(num_images, batch):
    assert advised(few_images.advice(num_images, 30.0, 1)) == {"global_batch_size": batch}


@dataclasses.dataclass
class Plan:
    """What a warning takes of a plan."""

    total_steps: int
    epochs: float = 30.0
    global_batch_size: int = 32
    num_replicas: int = 1
    source: object = dataclasses.field(
        default_factory=lambda: types.SimpleNamespace(num_examples=100)
    )


def test_below_a_hundred_steps_there_is_a_warning():
    assert not few_images.warnings(Plan(total_steps=100))
    [text] = few_images.warnings(Plan(total_steps=94))
    assert "training of 94 steps" in text and "100 images in batches of 32" in text
    assert advised(text) == {"global_batch_size": 16}
