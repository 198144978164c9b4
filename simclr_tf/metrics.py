"""Declares a number of the training step, once, where it is computed."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A number that every step reports.

    Attributes:
        name: Name in `metrics.jsonl` and TensorBoard.
        title: Title of its curve in `figures/curves.png`; None for no curve.
        whole: False if each replica has a share, and the sum over replicas is the number; True if
            every replica has the number itself.
    """

    name: str
    title: str | None = None
    whole: bool = False
