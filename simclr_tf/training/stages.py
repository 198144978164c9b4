"""Stages of a run with views of growing size, so that the first steps cost less.

A convolutional network learns much of its final representation from small views; the last stage
has the size of the data (progressive resizing; Tan and Le, EfficientNetV2, 2021,
https://arxiv.org/abs/2104.00298, section 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive steps with views of one size.

    Attributes:
      end: the number of steps at its end, from the start of the run.
      pipeline: its input.
    """

    end: int
    pipeline: ViewsPipeline


def stages_of(
    pipeline: ViewsPipeline,
    image_sizes: Sequence[tuple[int, float]],
    *,
    image_size: int,
    total_steps: int,
) -> tuple[Stage, ...]:
    """Returns the stages of a run.

    Args:
      pipeline: the input of the last stage, whose views have their full size.
      image_sizes: (side in pixels, share of the steps) of the stages before it. A group of views
        that is smaller than the data, as the small crops of multi-crop, shrinks in proportion.
      image_size: side of the data in pixels.
      total_steps: steps of the run.

    Raises:
      InvalidArgument: sizes do not grow up to below `image_size`, or shares leave the last stage no
        step.
    """
    _check(image_sizes, image_size)
    stages, done = [], 0.0
    for size, share in image_sizes:
        done += share
        smaller = _scaled(pipeline, size / image_size)
        stages.append(Stage(round(done * total_steps), smaller))
    return *stages, Stage(total_steps, pipeline)


def _scaled(pipeline: ViewsPipeline, factor: float) -> ViewsPipeline:
    groups = [
        dataclasses.replace(group, size=max(1, round(group.size * factor)))
        for group in pipeline.groups
    ]
    return dataclasses.replace(pipeline, groups=groups)


def _check(image_sizes: Sequence[tuple[int, float]], image_size: int) -> None:
    sizes = [size for size, _ in image_sizes]
    shares = [share for _, share in image_sizes]
    growing = all(a < b for a, b in zip([0, *sizes], [*sizes, image_size], strict=True))
    if not growing or not all(share > 0 for share in shares) or not sum(shares) < 1:
        raise InvalidArgument(
            "image_sizes must be (side in pixels, share of the steps) of each stage "
            f"before the last: sides that grow to below the data's {image_size}, and shares "
            f"above 0 whose sum is below 1. Received: {list(image_sizes)}. Write "
            "[(16, 0.6), (24, 0.3)] to train 60 % of the steps at 16 pixels and 30 % at 24."
        )
