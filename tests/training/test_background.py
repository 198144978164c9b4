"""If this breaks, a write that failed goes unnoticed, or two write at once."""

import threading

import pytest

from simclr_tf.training.background import Background


def failing():
    raise OSError("no room")


def test_an_error_is_raised_by_the_next_look_and_once():
    background = Background()
    background.start(failing)
    with pytest.raises(OSError, match="no room"):
        background.wait()
    background.wait()
    background.check()


def test_a_look_does_not_wait():
    may_end, background = threading.Event(), Background()
    background.start(may_end.wait)
    background.check()
    may_end.set()
    background.wait()


def test_a_second_piece_waits_for_the_first_and_tells_of_its_error():
    done, may_end, background = [], threading.Event(), Background()

    def first():
        may_end.wait()
        done.append("first")

    background.start(first)
    second = threading.Thread(target=background.start, args=(lambda: done.append("second"),))
    second.start()
    may_end.set()
    second.join()
    background.wait()
    assert done == ["first", "second"]
    background.start(failing)
    with pytest.raises(OSError, match="no room"):
        background.start(lambda: done.append("third"))
    assert done == ["first", "second"]
