"""If this breaks, a run in a thread does not start, or a caller's signals are lost after a run."""

import logging
import os
import signal
import threading

import pytest

from simclr_tf.training.preemption import StopRequest, handling

NUMBERS = (signal.SIGTERM, signal.SIGINT)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_the_callers_handlers_come_back(number):
    before = handlers()
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert handlers() != before
    assert handlers() == before


def test_a_second_interrupt_ends_at_once_with_the_callers_handlers():
    before = handlers()
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


def test_in_another_thread_nothing_is_installed_and_one_line_says_so(caplog):
    before, found = handlers(), []

    def use():
        with StopRequest() as stop:
            found.append((stop.requested, handlers()))

    with caplog.at_level(logging.INFO):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert found == [(False, before)]
    assert caplog.text.count("not in the main thread") == 1


def test_a_handler_that_is_not_pythons_is_replaced_by_the_systems(monkeypatch):
    installed = []
    monkeypatch.setattr(signal, "signal", lambda *both: installed.append(both))
    with handling(print):
        pass
    assert installed == [(n, h) for h in (print, signal.SIG_DFL) for n in NUMBERS]
