"""Reading SavedModels of this project back."""

from __future__ import annotations

import numpy as np

from simclr_tf.errors import RequestError


def read_weights(path: str) -> dict[str, dict[str, np.ndarray]]:
    """Group -> variable path -> value, of the SavedModel at `path`."""
    raise RequestError(f"Weights are read from checkpoints only so far. Received: {path}.")
