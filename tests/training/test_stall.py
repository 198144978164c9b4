"""If this breaks, a run that waits for ever looks like one that works, or a slow one cries wolf."""

import logging
import time

from simclr_tf.training.stall import StallWarning


def warnings(caplog, waits, **patience):
    """What is said while steps end after each of `waits` seconds."""
    with caplog.at_level(logging.WARNING), StallWarning(**patience) as stall:
        for wait in waits:
            time.sleep(wait)
            stall.moved()
    return [r.getMessage() for r in caplog.records if "no step has ended" in r.getMessage()]


def test_steady_steps_are_no_stall(caplog):
    assert not warnings(caplog, [0.3, 0.01, 0.01, 0.01], at_first=5, at_least=5)


def test_a_wait_is_told_again_each_time_it_has_doubled(caplog):
    # At 0.2, 0.4, 0.8 and 1.6 s, or later where this machine is slow.
    assert 2 <= len(warnings(caplog, [0.01, 0.01, 2.5], at_first=5, at_least=0.2, factor=1)) <= 5


def test_a_run_of_slow_steps_has_more_patience(caplog):
    assert not warnings(caplog, [0.01, 0.3, 1.3], at_first=5, at_least=1.0, factor=100)


def test_the_first_wait_has_a_patience_of_its_own(caplog):
    assert warnings(caplog, [1.0], at_first=0.3, at_least=5)


def test_the_second_wait_has_it_too(caplog):
    """Nothing is known of it yet: one that takes a minute is no stall."""
    assert not warnings(caplog, [0.01, 0.5], at_first=5, at_least=0.1)
