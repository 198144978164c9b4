"""The learning rate against the reference's numbers."""

import json

import keras
import numpy as np
import pytest

from simclr_tf.optim.schedules import (
    Steps,
    WarmupCosine,
    batch_by_count,
    scale_learning_rate,
    stepped_learning_rate,
    steps_for,
    warmup_steps_for,
)


def test_equals_the_reference(goldens):
    for case in json.loads((goldens / "loss_lars_schedule.json").read_text())["schedule"]:
        run = case["examples"], case["batch"]
        total_steps = steps_for(case["epochs"], *run)
        assert total_steps == case["total_steps"]
        peak = scale_learning_rate(case["base"], case["batch"], case["scaling"])
        schedule = WarmupCosine(peak, warmup_steps_for(case["warmup_epochs"], *run), total_steps)
        for step, value in case["values"]:
            np.testing.assert_allclose(schedule(step), value, rtol=1e-5, atol=1e-7 * peak)


def test_worked_numbers_of_the_paper():
    """4096 images a step on ImageNet: 4.8 by either rule; 97,657 steps for CIFAR-10."""
    np.testing.assert_allclose(scale_learning_rate(0.3, 4096, "linear"), 4.8)
    np.testing.assert_allclose(scale_learning_rate(0.075, 4096, "sqrt"), 4.8)
    assert scale_learning_rate(0.3, 4096, "none") == 0.3
    assert steps_for(100, 1_281_167, 4096) == 31_279
    assert steps_for(1000, 1_281_167, 4096) == 312_785
    assert warmup_steps_for(10, 1_281_167, 4096) == 3127
    assert steps_for(1000, 50_000, 512) == 97_657
    assert warmup_steps_for(10, 50_000, 512) == 976
    schedule = WarmupCosine(0.3 * 8 / 256, 1250, 12_501)
    actual = [schedule(step) for step in (0, 625, 1250, 6000, 12_500)]
    np.testing.assert_allclose(actual, [0, 0.0046875, 0.009375, 0.0058220, 2.8e-10], 1e-5, 1e-9)


def test_fractions_of_an_epoch():
    assert steps_for(0.5, 1000, 100) == 6
    assert warmup_steps_for(0.25, 1000, 100) == 2
    assert isinstance(steps_for(2.5, 1000, 100), int)
    assert isinstance(warmup_steps_for(2.5, 1000, 100), int)


def test_shape():
    schedule = WarmupCosine(2.0, 10, 110)
    values = np.array([schedule(step) for step in range(120)])
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:11], np.linspace(0, 2, 11), rtol=1e-6)
    assert (np.diff(values[10:111]) < 0).all()
    np.testing.assert_allclose(values[60], 1.0, rtol=1e-6)
    assert (values[110:] == 0).all()


def test_without_warmup_starts_at_the_peak():
    np.testing.assert_allclose(WarmupCosine(2.0, 0, 10)(0), 2.0)


def test_round_trip():
    schedule = WarmupCosine(2.0, 10, 110)
    config = keras.optimizers.schedules.serialize(schedule)
    assert keras.optimizers.schedules.deserialize(config).get_config() == schedule.get_config()


@pytest.mark.parametrize("arguments", [(-1.0, 0, 10), (1.0, -1, 10), (1.0, 10, 10), (1.0, 11, 10)])
def test_rejects(arguments):
    with pytest.raises(ValueError, match=r"0 <= warmup_steps < total_steps\. Received: peak="):
        WarmupCosine(*arguments)


def test_rejects_unknown_scaling():
    with pytest.raises(ValueError, match=r"Received: scaling='log'\. Valid: linear, sqrt, none"):
        scale_learning_rate(0.3, 256, "log")


@pytest.mark.parametrize(
    ("images", "batch"), [(3, 32), (640, 64), (2_200, 128), (10_000, 512), (10**6, 1024)]
)
def test_a_batch_by_count_is_a_power_of_two_with_ten_steps_an_epoch(images, batch):
    found = batch_by_count(num_examples=images)
    assert found == batch
    assert found in (32, 1024) or found <= images / 10 < 2 * found


def test_bounds_of_a_batch_by_count_are_checked():
    with pytest.raises(ValueError, match="smallest <= largest"):
        batch_by_count(smallest=64, largest=32, num_examples=1000)


def test_steps_of_moco_v1():
    """From 0.03 at 256 images a step by a factor of 0.1 at epochs 120 and 160 of 200."""
    schedule = stepped_learning_rate(epochs=200.0, num_examples=2560, global_batch=256)
    assert (schedule.total_steps, schedule.warmup_steps) == (2001, 0)
    found = [schedule(step) for step in (0, 1199, 1200, 1599, 1600, 2000)]
    np.testing.assert_allclose(found, [0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003], rtol=1e-6)
    assert schedule.words == "multiplied by 0.1 at steps 1,200, 1,600"
    short = stepped_learning_rate(epochs=1.0, num_examples=2560, global_batch=512)
    assert short.words == "constant"
    np.testing.assert_allclose(short(5), 0.06, rtol=1e-6)
    config = keras.optimizers.schedules.serialize(schedule)
    assert keras.optimizers.schedules.deserialize(config).get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "arguments", [(-1.0, (), 0.1, 9), (1.0, (5, 3), 0.1, 9), (1.0, (), 0.0, 9), (1.0, (), 0.1, 0)]
)
def test_rejects_steps(arguments):
    with pytest.raises(ValueError, match=r"total_steps >= 1\. Received: peak="):
        Steps(*arguments)
