"""How a number of the training step is declared, once, where it is computed."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A number that every step reports.

    Attributes:
        name: In `metrics.jsonl` and TensorBoard.
        title: Above its curve in `figures/curves.png`; None for no curve.
        whole: False where each replica has a share, and the sum over replicas is the number; True
            where every replica has the number itself.
    """

    name: str
    title: str | None = None
    whole: bool = False
