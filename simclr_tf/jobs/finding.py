"""What an evaluation of frozen networks found, and how a job that ends with it makes it known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from simclr_tf.evaluation.knn import KnnAccuracy
from simclr_tf.evaluation.linear import LinearResult
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import write_result
from simclr_tf.jobs.frozen import Frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What an evaluation found, of which nothing was printed or written yet.

    Attributes:
      context: what the command line says.
      job: whose result it is.
      frozen: the networks that were evaluated.
      protocol: in words.
      numbers: shares of the test images, `top1` and `top5` among them.
      n: how many images there were, by split.
      text: what a person is told.
      details: what else the result says.
    """

    context: Context
    job: str
    frozen: Frozen
    protocol: str
    numbers: KnnAccuracy | LinearResult
    n: Mapping[str, int]
    text: str
    details: Mapping[str, Any]


def publish(finding: Finding) -> dict[str, Any]:
    """Prints the text, and writes `results/<job>.json`, which is returned."""
    print(finding.text, flush=True)
    return write_result(
        finding.context.model_dir,
        finding.job,
        protocol=finding.protocol,
        numbers=finding.numbers,
        n=finding.n,
        **finding.details,
        **finding.frozen.record(),
    )
