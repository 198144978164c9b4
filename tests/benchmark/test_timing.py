"""If this breaks, a benchmark's table compares numbers that were not measured side by side."""

import json
import subprocess
import sys

import numpy as np
import pytest

from simclr_tf.benchmark import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what a contestant adds to it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_ratios_are_taken_within_a_round(clock):
    """A machine that gets slower from round to round changes rates and no ratio."""
    runs = []

    def contestant(name, seconds):
        def run():
            runs.append(name)
            clock[0] += seconds * ((len(runs) + 1) // 2)
            return 10

        return run

    plain, twice = timing.take_turns(
        {"plain": contestant("plain", 2.0), "twice": contestant("twice", 1.0)},
        rounds=3,
        baseline="plain",
    )
    assert runs == ["plain", "twice", "plain", "twice", "twice", "plain", "plain", "twice"]
    np.testing.assert_allclose(plain.rates, [10 / 4, 10 / 6, 10 / 8])
    np.testing.assert_allclose(twice.rates, [10 / 2, 10 / 3, 10 / 4])
    np.testing.assert_allclose(twice.ratios, 2.0)
    assert (plain.rate, twice.ratio) == (10 / 6, 2.0)


PEAKS = """
import json
import numpy as np
from simclr_tf.benchmark import timing

def hold():
    assert np.ones(512 * 2**17).sum() > 0  # 512 MiB
    return 1

def hold_nothing():
    return 1

contestants = {"large": hold, "small": hold_nothing}
timings = timing.take_turns(contestants, rounds=1, baseline="large")
print(json.dumps([t.peak_mib for t in timings]))
"""


def test_peak_growth_is_of_what_a_contestant_holds_at_once():
    """In a process of its own, where no thread of another test takes memory meanwhile."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    large, small = json.loads(done.stdout)
    if large is None:
        pytest.skip("this system does not tell a process's peak")
    assert 480 < large < 544
    assert small < 8


def test_table_gives_median_and_extremes():
    row = timing.Timing("ours", (1.0, 4.0, 2.0), (0.5, 2.0, 1.0), None)
    assert "| ours | 2.0 (1.0 to 4.0) | 1.00 (0.50 to 2.00) |  |" in timing.table([row], "views")


def test_rates_below_one_keep_their_digits():
    row = timing.Timing("slow", (0.00512,), (1.0,), 304.2)
    assert "| slow | 0.00512 (0.00512 to 0.00512) |" in timing.table([row], "steps")
