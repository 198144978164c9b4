"""If this breaks, SIGTERM comes too late, hosts wait without end, or a mean is wrong."""

import contextlib
import threading
import types

import numpy as np
import pytest

from simclr_tf.distribute.hosts import Agreed
from simclr_tf.training import calls
from simclr_tf.training.calls import CALL_SECONDS, Calls
from simclr_tf.training.loop import LoopResult
from simclr_tf.training.profile import Profile


class Host:
    """Runs steps that take `seconds` each by a clock of its own; the first call compiles."""

    def __init__(self, seconds, agree=Agreed, profile=None, bad=None):
        self.seconds, self.now, self.at, self.lengths, self.bad = seconds, 0.0, 0, [], bad
        self.stop = types.SimpleNamespace(requested=False)
        self.stop_at = None
        self.calls = Calls(
            self.run_steps,
            agree=agree,
            stop=self.stop,
            stall=types.SimpleNamespace(moved=lambda: None),
            profile=Profile("", profile, is_chief=False),
            between=lambda: None,
        )

    def run_steps(self, steps):
        self.now += self.seconds * steps + (0 if self.lengths else 100)
        self.lengths.append(steps)
        numbers = np.arange(self.at, self.at + steps, dtype=np.float64)
        first_bad = None
        if self.bad is not None and self.at <= self.bad < self.at + steps:
            first_bad = self.bad - self.at
        self.at += steps
        if self.stop_at is not None and self.at >= self.stop_at:
            self.stop.requested = True
        return LoopResult({"number": numbers.mean()}, first_bad, self.seconds * steps / 4)

    def take(self, step, goal):
        return self.calls.take(step, goal, lambda: False)


@pytest.fixture
def host(monkeypatch):
    made = []
    clock = types.SimpleNamespace(perf_counter=lambda: made[-1].now)
    monkeypatch.setattr(calls, "time", clock)
    return lambda *args, **kwargs: made.append(Host(*args, **kwargs)) or made[-1]


def test_slow_steps_are_taken_by_short_calls(host):
    slow = host(3.0)
    tally = slow.take(0, 20)
    assert tally.steps == 20 and sum(slow.lengths) == 20
    assert max(slow.lengths) * 3.0 <= CALL_SECONDS
    assert slow.lengths[2:4] == [2, 3], "calls grow to what fits"


def test_a_step_longer_than_a_call_should_be_is_a_call(host):
    slow = host(60.0)
    slow.take(0, 3)
    assert slow.lengths == [1, 1, 1]


def test_quick_steps_need_few_calls(host):
    quick = host(1e-3)
    for step in (0, 100, 200):
        quick.take(step, step + 100)
    assert len(quick.lengths) < 12 and quick.lengths[-1] == 100


def test_a_report_has_the_mean_of_all_its_steps(host):
    uneven = host(3.0)
    uneven.take(0, 7)
    tally = uneven.take(7, 20)
    assert len(set(uneven.lengths)) > 1
    assert tally.metrics["number"] == pytest.approx(np.arange(7, 20).mean(), rel=1e-12)
    assert tally.host_wait / tally.seconds == pytest.approx(0.25)


def test_a_request_to_stop_is_heard_after_the_call(host):
    slow = host(9.0)
    slow.stop_at = 4
    tally = slow.take(0, 100)
    assert tally.stop and tally.steps == 4


def test_the_first_bad_step_is_counted_from_the_start_of_the_report(host):
    slow = host(9.0, bad=5)
    tally = slow.take(0, 100)
    assert tally.first_bad == 5


def test_profiled_steps_are_calls_of_their_own(host):
    quick = host(1e-3, profile=(20, 23))
    quick.take(0, 100)
    ends = np.cumsum(quick.lengths)
    assert {20, 21, 22, 23} <= set(ends)
    assert ends[-1] == 100 and len(ends) < 20


def test_hosts_of_different_speed_take_the_same_steps(monkeypatch):
    """Each would wait for ever in a collective of a step that another does not take."""
    together = threading.Barrier(2, timeout=60)
    wishes, made = {}, {}

    def agree(*wish):
        wishes[threading.get_ident()] = wish
        together.wait()
        stop, save, steps = zip(*wishes.values(), strict=True)
        together.wait()
        return Agreed(any(stop), any(save), sum(steps) // 2)

    clock = types.SimpleNamespace(perf_counter=lambda: made[threading.get_ident()].now)
    monkeypatch.setattr(calls, "time", clock)
    lengths = {}

    def run(seconds, stop_at):
        host = made[threading.get_ident()] = Host(seconds, agree)
        host.stop_at = stop_at
        step = 0
        with contextlib.suppress(threading.BrokenBarrierError):
            while step < 90:
                tally = host.take(step, step + 30)
                step += tally.steps
                if tally.stop:
                    break
            lengths[seconds] = host.lengths

    threads = [threading.Thread(target=run, args=a) for a in ((1.3, None), (0.7, 70))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths[1.3] == lengths[0.7]
    assert 70 <= sum(lengths[1.3]) < 90
