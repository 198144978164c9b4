"""If this breaks, a run on PJRT devices learns something else than on TensorFlow's, or loses it."""

import functools
import shutil

import numpy as np
import pytest

from simclr_tf.distribute.strategy import create_strategy
from simclr_tf.training.checkpoints import complete_steps
from tests.methods.conformance import tiny_encoder
from tests.support.short_runs import TOTAL, reports, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("virtual_devices")]

ON_FIVE = {"runtime": "pjrt", "strategy": functools.partial(create_strategy, cpu_replicas=5)}
CUT = 8  # in the second of two stages


def compare(folder, expected_folder, tolerance):
    """Asserts that weights, and what the optimizer remembers, are equal up to rounding."""
    found, expected = weights(folder, TOTAL), weights(expected_folder, TOTAL)
    assert found.keys() == expected.keys() and len(found) > 20
    for name, value in expected.items():
        error = np.linalg.norm(np.float64(found[name]) - value)
        scale = max(np.linalg.norm(np.float64(value)), 0.1 * np.sqrt(value.size))
        assert error <= tolerance * scale, f"{name}: {error / scale:.1e}"
    losses = [list(reports(f).values())[-1] for f in (folder, expected_folder)]
    np.testing.assert_allclose(*losses, rtol=max(tolerance, 1e-6))


def test_the_runtime_may_change_at_any_checkpoint(run, tmp_path):
    settings = {
        "encoder": tiny_encoder,
        "image_sizes": [(8, 0.45)],
        "checkpoint_every_steps": CUT,
    }
    starts = {"tensorflow": settings, "pjrt": settings | ON_FIVE}
    for name, arguments in starts.items():
        run(tmp_path / name, **arguments)
    compare(tmp_path / "pjrt", tmp_path / "tensorflow", 1e-3)
    for before, after in (("tensorflow", "pjrt"), ("pjrt", "tensorflow"), ("pjrt", "pjrt")):
        folder = shutil.copytree(tmp_path / before, tmp_path / f"{before}_{after}")
        shutil.rmtree(folder / "checkpoints" / f"step_{TOTAL:08d}")
        assert complete_steps(str(folder))[-1] == CUT
        run(folder, **starts[after])
        compare(folder, tmp_path / after, 0.0 if before == after else 1e-3)
