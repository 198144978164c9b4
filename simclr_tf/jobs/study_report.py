"""`study_report`: the table and the figure of a study, from the cells finished so far."""

from __future__ import annotations

import os
from collections.abc import Callable

import gin

from simclr_tf.context import Context
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import Result
from simclr_tf.jobs.study import Plan, planned
from simclr_tf.study.record import Record
from simclr_tf.study.report import report


@gin.configurable
def study_report(context: Context, *, study: Callable[..., Plan] = planned) -> Result:
    """Reports a study, while it runs or afterwards.

    Args:
      context: the command line's values; model_dir is the study's.
      study: the study.

    Returns:
      The numbers, which the command line writes into `results/study.json`.
    """
    described = study(context).study
    if not os.path.isdir(os.path.join(described.folder, "cells")):
        raise RequestError(
            f"--model_dir must be a study's. Received: {described.folder}, which has no folder "
            "cells. Start the study with --job=study."
        )
    Record(described).open()
    return report(described)
