"""What tests of whole runs start from."""

import pytest

from simclr_tf.training.trainer import train
from tests.support.short_runs import short_run


@pytest.fixture
def run():
    """Trains for 12 steps on pictures, with a report every 4."""
    return lambda folder, **kwargs: train(short_run(folder, **kwargs), export=lambda: "")
