"""Numerical derivatives of float64 oracles."""

from collections.abc import Callable

import numpy as np


def slope(function: Callable[[np.ndarray], float], at: np.ndarray, index: tuple) -> float:
    """Returns the derivative of a function by one element of its argument, by two values of it."""
    shift = np.zeros(at.shape)
    shift[index] = 1e-5
    return (function(at + shift) - function(at - shift)) / 2e-5
