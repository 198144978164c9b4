"""If this breaks, a run that is stopped, saved or profiled amid a report learns something else."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import PreemptedError, RequestError
from simclr_tf.training import calls, runtime
from simclr_tf.training.checkpoints import complete_steps
from simclr_tf.training.stall import StallWarning
from tests.support.short_runs import TOTAL, reports, weights

pytestmark = pytest.mark.slow


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
    seen, real = [], runtime.make_loop

    def make_loop(strategy, step, names):
        def seeing(batch):
            seen.append(tuple(batch["images"].shape))
            return step(batch)

        return real(strategy, seeing, names)

    monkeypatch.setattr(runtime, "make_loop", make_loop)
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
