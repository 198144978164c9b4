"""If this breaks, two processes run one cell, or none goes on with a dead one's."""

import multiprocessing
import os
import pathlib
import signal

import pytest

from simclr_tf.study import claims
from simclr_tf.study.claims import Claims


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def elsewhere(monkeypatch, name: str) -> None:
    """Makes this process one of another host."""
    monkeypatch.setattr(claims, "_kernel", lambda: {"host": name, "boot": name})


def test_a_claim_is_one_process_s_until_it_is_given_back(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = first.take("cell")
    assert claim.beat()
    assert second.take("cell") is None and second.take("other") is not None
    claim.give_back()
    assert second.take("cell").beat()


def take(folder: pathlib.Path, name: str, found: multiprocessing.Queue) -> None:
    claim = Claims(folder).take(name)
    found.put(claim is not None)
    signal.pause()  # holds it until it is killed


def test_of_many_at_once_one_gets_it_and_a_killed_one_is_taken_over_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    processes = [context.Process(target=take, args=(tmp_path, "cell", found)) for _ in range(8)]
    for process in processes:
        process.start()
    try:
        assert sum(found.get(timeout=30) for _ in processes) == 1
        assert Claims(tmp_path).take("cell") is None
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert Claims(tmp_path).take("cell") is not None


def test_the_process_that_runs_the_cell_keeps_the_claim_alive(tmp_path):
    claim = Claims(tmp_path).take("cell")
    run = os.open(claim.path, os.O_RDWR)
    claims.hold(run)
    os.close(claim._file)  # as when the study's process is killed
    assert Claims(tmp_path).take("cell") is None
    os.close(run)
    assert Claims(tmp_path).take("cell") is not None


def test_a_silent_owner_on_another_host_is_replaced_and_notices(tmp_path, monkeypatch):
    owners, others = Clock(), Clock()
    claim = Claims(tmp_path, owners).take("cell")
    elsewhere(monkeypatch, "other")
    second = Claims(tmp_path, others)
    for _ in range(20):  # beats are seen, whatever the clocks say
        owners.now += 16
        others.now += 100
        assert claim.beat() and second.take("cell") is None
    others.now += 119
    assert second.take("cell") is None
    others.now += 2
    taken = second.take("cell")
    assert taken.beat() and not claim.beat()
    claim.give_back()
    assert taken.beat()


def test_two_that_find_a_silent_owner_do_not_both_replace_it(tmp_path, monkeypatch):
    Claims(tmp_path).take("cell")
    elsewhere(monkeypatch, "other")
    clock = Clock()
    both = [Claims(tmp_path, clock) for _ in range(2)]
    assert [c.take("cell") for c in both] == [None, None]
    clock.now += 121
    assert sum(c.take("cell") is not None for c in both) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff{"])
def test_a_claim_that_says_nothing_is_left_alone_while_it_may_be_new(tmp_path, content):
    (tmp_path / "cell.1").write_bytes(content)
    clock = Clock()
    found = Claims(tmp_path, clock)
    assert found.take("cell") is None
    clock.now += 121
    assert found.take("cell") is not None
