"""What the command line says about a run, beside the recipe."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a run's files go, where its data lie, and which devices it may take.

    Attributes:
      model_dir: the run's folder.
      data_dir: where prepared data sets lie, or the folder of images; None for the default.
      tpu: 'auto', 'local', 'none' or the name of a TPU.
    """

    model_dir: str
    data_dir: str | None = None
    tpu: str = "auto"
