"""What tests of whole runs start from."""

import pytest

from simclr_tf.training.stall import StallWarning
from simclr_tf.training.trainer import train
from tests.support.short_runs import short_run


@pytest.fixture
def run():
    """Trains for 12 steps on pictures, with a report every 4."""
    return lambda folder, **kwargs: train(short_run(folder, **kwargs), export=lambda: "")


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
