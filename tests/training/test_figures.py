"""If this breaks, a run learns from black pictures and nobody is told."""

import numpy as np
import pytest
from absl import logging

from simclr_tf.training import figures


@pytest.mark.parametrize(
    ("level", "said"), [(0.0, "32 nearly black"), (1.0, "32 nearly white"), (0.5, "32 of one")]
)
def test_empty_views_are_counted(level, said, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    rng = np.random.default_rng(0)
    figures._warn_of_empty(rng.random((16, 2, 8, 8, 3), np.float32))
    assert not lines
    figures._warn_of_empty(np.full((16, 2, 8, 8, 3), level, np.float32))
    assert said in lines[0]
