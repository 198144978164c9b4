"""If this breaks, two runs write into one folder of a bucket and spoil each other's checkpoints.

In TensorFlow's file system in memory, `ram://`, which like an object store has no locks.
"""

import json
import logging
import uuid

import pytest
import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.training.lease import Lease
from simclr_tf.training.run_lock import exclusive


@pytest.fixture
def folder():
    return f"ram://{uuid.uuid4().hex}/run"


def owner(folder):
    with tf.io.gfile.GFile(f"{folder}/checkpoints/owner.json") as file:
        return json.loads(file.read())


def held(folder):
    lease = Lease(folder, sleep=lambda seconds: None)
    lease.take()
    return lease


def test_a_folder_is_held_once_and_free_again_afterwards(folder):
    first = held(folder)
    second = Lease(folder, sleep=lambda seconds: first.beat())
    with pytest.raises(RequestError, match=r"One run at a time(.|\n)*process \d+ on .* trains"):
        second.take()
    first.check()
    first.give_back()
    assert not tf.io.gfile.exists(f"{folder}/checkpoints/owner.json")
    held(folder).give_back()


def test_an_owner_that_beats_no_longer_is_followed(folder, caplog):
    killed = held(folder)
    naps = []
    with caplog.at_level(logging.WARNING):
        successor = Lease(folder, sleep=naps.append)
        successor.take()
    assert "this run takes over" in caplog.text
    assert sum(naps) >= 45, "a slow store must not cost a run its folder"
    # It was only halted, and goes on.
    killed.beat()
    with pytest.raises(RequestError, match="One run at a time"):
        killed.check()
    killed.give_back()
    successor.beat()
    successor.check()
    assert owner(folder)["beat"] == 1, "the run that lost it touched the successor's object"
    successor.give_back()


def test_an_owner_that_ends_meanwhile_is_followed_at_once(folder):
    first = held(folder)
    second = Lease(folder, sleep=lambda seconds: first.give_back())
    second.take()
    second.give_back()


def test_of_two_that_start_at_once_one_leaves(folder):
    late = Lease(folder, sleep=lambda seconds: None)
    early = Lease(folder, sleep=lambda seconds: late.take())  # has looked and written before
    with pytest.raises(RequestError, match="One run at a time"):
        early.take()
    late.beat()
    late.check()
    late.give_back()


def test_a_successor_that_has_ended_counts_too(folder):
    halted = held(folder)
    held(folder).give_back()
    halted.beat()
    with pytest.raises(RequestError, match="another run has trained"):
        halted.check()


def test_a_damaged_object_is_somebodys(folder):
    tf.io.gfile.makedirs(f"{folder}/checkpoints")
    with tf.io.gfile.GFile(f"{folder}/checkpoints/owner.json", "w") as file:
        file.write('{"token": "ab')
    other = Lease(folder, sleep=lambda seconds: None)
    other.take()
    assert owner(folder)["owner"].startswith("process ")
    other.give_back()


def test_a_folder_of_something_else_is_left_as_it_is(folder):
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(f"{folder}/thesis.tex", "w") as file:
        file.write("precious")
    with exclusive(folder) as still_ours:
        still_ours()
        assert tf.io.gfile.listdir(folder) == ["thesis.tex"]


def test_a_run_holds_the_lease_of_a_url_while_it_trains(folder, monkeypatch):
    monkeypatch.setattr("simclr_tf.training.lease._SETTLE", 0.0)
    with exclusive(folder) as still_ours:
        still_ours()
        assert owner(folder)["beat"] == 0
    assert not tf.io.gfile.exists(f"{folder}/checkpoints/owner.json")
