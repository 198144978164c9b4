"""Pairs of augmentations, which the SimCLR paper compares (section 3.1, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gin


@gin.configurable
def op_pair(first: Sequence[Any] = (), second: Sequence[Any] = ()) -> list[Any]:
    """Returns the policy that applies one augmentation after another, or one alone.

    Args:
        first: Entries of a policy that belong together, such as ('color_jitter', 0.8) and
            ('grayscale', 0.2).
        second: Entries that follow; if they equal the first, as on the diagonal of figure 5, they
            are applied once.
    """
    return list(first) if list(first) == list(second) else [*first, *second]
