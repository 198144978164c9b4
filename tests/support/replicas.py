"""Rows of a global batch, dealt out to replicas and joined again."""

import numpy as np


def parts(array: np.ndarray, replicas: int, views: int) -> np.ndarray:
    """[V*G, ...] to [R, V*B, ...], view after view on each replica."""
    split = array.reshape(views, replicas, -1, *array.shape[1:])
    return np.swapaxes(split, 0, 1).reshape(replicas, -1, *array.shape[1:])


def joined(array: np.ndarray, views: int) -> np.ndarray:
    """[R, V*B, ...] to [V*G, ...], the inverse of `parts`."""
    replicas, _, *rest = array.shape
    split = array.reshape(replicas, views, -1, *rest)
    return np.swapaxes(split, 0, 1).reshape(-1, *rest)
