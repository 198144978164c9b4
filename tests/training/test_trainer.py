"""If this breaks, a run that is stopped, saved or profiled amid a report learns something else."""

import functools
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.data.source import ArraySource
from simclr_tf.errors import PreemptedError, RequestError
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.training import calls, trainer
from simclr_tf.training.checkpoints import complete_steps
from simclr_tf.training.stall import StallWarning
from simclr_tf.training.trainer import train
from tests.support.small_resnet import SMALL_DEPTH

pytestmark = pytest.mark.slow
TOTAL = 12


@pytest.fixture(scope="module")
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


@pytest.fixture
def run(pictures):
    """Pretrains for 12 steps on the pictures, with a report every 4."""

    def run(folder, **kwargs):
        assembled = pretraining(
            Context(model_dir=str(folder), tpu="none"),
            data=lambda data_dir: Dataset(
                "arrays", 16, "train", "test", 64, data_dir, opened=pictures
            ),
            method=functools.partial(
                simclr, projection_head=functools.partial(projection_head, output_dim=8)
            ),
            encoder=functools.partial(resnet, depth=SMALL_DEPTH, width_multiplier=0.125),
            global_batch_size=5,
            epochs=1.9,
            precision="float32",
            steps_per_loop=4,
            **kwargs,
        )
        train(assembled, export=lambda: "")

    return run


@pytest.fixture
def after_call(monkeypatch):
    """Has something done after the nth call of the inner loop."""

    def after(number, work):
        count, real = iter(range(1, 1000)), StallWarning.moved

        def moved(self):
            real(self)
            if next(count) == number:
                work()

        monkeypatch.setattr(StallWarning, "moved", moved)

    return after


def weights(folder, step):
    reader = tf.train.load_checkpoint(f"{folder}/checkpoints/step_{step:08d}/variables")
    names = [name for name in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in name]
    return {name: reader.get_tensor(name) for name in names}


def reports(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def test_a_run_stopped_amid_a_report_goes_on_bit_for_bit(run, after_call, tmp_path, monkeypatch):
    run(tmp_path / "whole", checkpoint_every_minutes=None)
    monkeypatch.setattr(calls, "CALL_SECONDS", 0.0)  # each call takes one step
    after_call(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    # Every report is followed by a checkpoint.
    often = {"checkpoint_every_minutes": 1e-9, "profile_steps": (5, 7)}
    with pytest.raises(PreemptedError, match="at step 6 of 12, which is saved"):
        run(tmp_path / "stopped", **often)
    assert complete_steps(str(tmp_path / "stopped")) == [0, 4, 6]
    run(tmp_path / "stopped", **often)
    assert complete_steps(str(tmp_path / "stopped")) == [6, 8, TOTAL]
    expected = weights(tmp_path / "whole", TOTAL)
    found = weights(tmp_path / "stopped", TOTAL)
    assert found.keys() == expected.keys() and len(found) > 50
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    whole, stopped = reports(tmp_path / "whole"), reports(tmp_path / "stopped")
    assert list(whole) == [4, 8, 12] and list(stopped) == [4, 6, 8, 12]
    np.testing.assert_allclose((stopped[6] + stopped[8]) / 2, whole[8], rtol=1e-6)
    np.testing.assert_allclose([stopped[4], stopped[12]], [whole[4], whole[12]], rtol=1e-6)
    profiles = (tmp_path / "stopped" / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert len(list(profiles)) == 2, "one of step 5, and one of step 6 after the restart"


def test_a_write_that_fails_ends_the_run_at_the_next_call(run, after_call, tmp_path, monkeypatch):
    real = tf.train.Checkpoint.write

    def write(self, path):
        if "step_00000004" in path:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
        return real(self, path)

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    with pytest.raises(RequestError, match=r"have room\. Received: No space left on device"):
        run(tmp_path, checkpoint_every_steps=4)
    assert complete_steps(str(tmp_path)) == [0]
    assert TOTAL not in reports(tmp_path)


def test_a_run_stopped_in_any_stage_goes_on_bit_for_bit(run, after_call, tmp_path, capsys):
    sizes = {"image_sizes": [(8, 0.45), (12, 0.3)]}
    run(tmp_path / "whole", **sizes)
    plan = "2 of 8 x 8 to step 5, then 2 of 12 x 12 to step 9, then 2 of 16 x 16 pixels"
    assert plan in capsys.readouterr().out
    assert list(reports(tmp_path / "whole")) == [4, 5, 8, 9, 12]
    for call in (1, 4, 3):  # in every stage
        after_call(call, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(PreemptedError):
            run(tmp_path / "stopped", **sizes)
    run(tmp_path / "stopped", **sizes)
    expected = weights(tmp_path / "whole", TOTAL)
    found = weights(tmp_path / "stopped", TOTAL)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_stage_has_views_of_its_size(run, tmp_path, monkeypatch):
    seen, real = [], trainer.make_loop

    def make_loop(strategy, step, names):
        def seeing(batch):
            seen.append(tuple(batch["images"].shape))
            return step(batch)

        return real(strategy, seeing, names)

    monkeypatch.setattr(trainer, "make_loop", make_loop)
    run(tmp_path, image_sizes=[(8, 0.5)], augment_on="host")
    assert list(dict.fromkeys(seen)) == [(10, 8, 8, 3), (10, 16, 16, 3)]


@pytest.mark.parametrize("sizes", [[(16, 0.5)], [(12, 0.2), (8, 0.2)], [(8, 1.0)], [(8, 0.0)]])
def test_sizes_grow_and_leave_steps_for_the_last(run, tmp_path, sizes):
    with pytest.raises(RequestError, match=r"image_sizes must be .* below the data's 16, "):
        run(tmp_path, image_sizes=sizes)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("minutes", [0, -1.0])
def test_a_time_between_checkpoints_is_positive(run, tmp_path, minutes):
    with pytest.raises(RequestError, match="checkpoint_every_minutes must be more than 0"):
        run(tmp_path, checkpoint_every_minutes=minutes)


def test_steps_to_profile_are_the_runs(run, tmp_path):
    with pytest.raises(RequestError, match=r"profile_steps must be .* <= 12"):
        run(tmp_path, profile_steps=(10, 13))
