"""The command line's settings of a run, beside the recipe."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Context:
    """The folders of a run's files and data, and the devices that it may use.

    Attributes:
      model_dir: the run's folder.
      data_dir: the folder of prepared data sets, or of images; None for the default.
      tpu: 'auto', 'local', 'none' or the name of a TPU.
      runtime: what takes the steps of training: 'tensorflow', or 'pjrt' for jax's PJRT client.
      arguments: the command line's other flags, for a job that starts runs; not model_dir and job.
    """

    model_dir: str
    data_dir: str | None = None
    tpu: str = "auto"
    runtime: str = "tensorflow"
    arguments: tuple[str, ...] = ()
