"""`label_free`: measures of the representation that need no labels, to choose between runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import gin
import numpy as np

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.policy import augmentation as recipe_augmentation
from simclr_tf.context import Context
from simclr_tf.data.source import Source
from simclr_tf.data.subset import sample
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.label_free import PROTOCOL, Spectrum, alignment, uniformity
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Split, Splits
from simclr_tf.evaluation.view_pairs import view_pairs
from simclr_tf.training.failures import as_request_error


@dataclasses.dataclass(frozen=True)
class LabelFree:
    """The measures; `alpha_req` is None where too few eigenvalues are above rounding errors."""

    rankme: float
    alpha_req: float | None
    alignment: float
    uniformity: float


@gin.configurable(denylist=["context"])
def label_free(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    augmentation: Callable[[], Augmentation] = recipe_augmentation,
    split: Literal["train", "evaluation"] = "train",
    view_images: int = 2048,
) -> Result:
    """Measures features by RankMe, alpha-ReQ, alignment and uniformity; nothing is trained.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder and the data, which needs no labels.
      augmentation: makes the views, as in pretraining.
      split: whose images are measured.
      view_images: at most so many of them, drawn by the encoder's seed, are seen in two views.

    Returns:
      The measures, which the command line writes into `results/label_free.json`.
    """
    if view_images < 2:
        raise RequestError(
            "label_free.view_images must be at least 2, since uniformity compares images. "
            f"Received: label_free.view_images={view_images}."
        )
    frozen = encoder(context=context)
    with as_request_error():
        source = _source(frozen, split)
        features = frozen.features(source)
        _check_count(len(features.values), source)
        views = view_pairs(frozen, sample(source, view_images, frozen.seed), augmentation())
    _check_count(len(views[0]), source)
    name = frozen.data.train_split if split == "train" else frozen.data.eval_split
    splits = Splits({split: Split.of(source, name, features.labels)})
    return _result(frozen, Spectrum.of(features.values), views, splits)


def _source(frozen: Frozen, split: str) -> Source:
    return frozen.data.train() if split == "train" else frozen.data.evaluation()


def _check_count(count: int, source: Source) -> None:
    if count < 2:
        raise RequestError(
            f"label_free compares images, so at least 2 must decode. Received: {count} of "
            f"{source.name}."
        )


def _result(
    frozen: Frozen, spectrum: Spectrum, views: tuple[np.ndarray, np.ndarray], splits: Splits
) -> Result:
    numbers = LabelFree(
        rankme=spectrum.rankme(),
        alpha_req=spectrum.alpha_req(),
        alignment=alignment(*views),
        uniformity=(uniformity(views[0]) + uniformity(views[1])) / 2,
    )
    [used] = splits.parts.values()
    dimensions = len(spectrum.eigenvalues)
    splits = splits.warned(_warnings(used.images, dimensions))
    said = _text(numbers, dimensions, spectrum.fitted_ranks(), len(views[0]))
    return Result(
        job="label_free",
        text=f"{frozen.layer} of {frozen.weights.path}\n{said}\n{splits.lines()}",
        record={
            "protocol": PROTOCOL,
            "numbers": numbers,
            "n": {"images": used.images, "in_two_views": len(views[0])},
            "dimensions": dimensions,
            "fitted_ranks": spectrum.fitted_ranks(),
            **splits.record(),
            **frozen.record(),
        },
        curves={k: v for k, v in dataclasses.asdict(numbers).items() if v is not None},
    )


def _text(
    numbers: LabelFree, dimensions: int, fitted: tuple[int, int] | None, in_views: int
) -> str:
    alpha = "undefined, as too few eigenvalues are above 0"
    if fitted:
        alpha = f"{numbers.alpha_req:.3f} (eigenvalues {fitted[0]} to {fitted[1]})"
    return (
        f"RankMe {numbers.rankme:.2f} of {dimensions:,} dimensions\nalpha-ReQ {alpha}\n"
        f"alignment {numbers.alignment:.4f}, uniformity {numbers.uniformity:.4f} "
        f"({in_views:,} images in two views)"
    )


def _warnings(images: int, dimensions: int) -> list[str]:
    if images >= dimensions:
        return []
    return [
        f"there are fewer images ({images:,}) than dimensions ({dimensions:,}), and RankMe cannot "
        "be above either. Compare it only with runs that were measured on as many images."
    ]
