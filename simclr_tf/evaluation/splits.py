"""Which images a result was trained and tested on, and which classes the test images lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simclr_tf.data.dataset import Dataset
from simclr_tf.data.source import Source
from simclr_tf.names import listed, shown


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of the data, as far as an evaluation used it.

    Attributes:
      source: the source's name.
      split: the split's name in the recipe.
      images: the number of images that were used.
    """

    source: str
    split: str
    images: int

    @classmethod
    def of(cls, source: Source, split: str, used: np.ndarray | None = None) -> Split:
        """Returns all images of a source, or as many as `used` has rows."""
        return cls(shown(source.name), split, source.num_examples if used is None else len(used))

    def __str__(self) -> str:
        return f"{self.source} (split {self.split!r}, {self.images:,} images)"


@dataclasses.dataclass(frozen=True)
class Splits:
    """The splits of an evaluation.

    Attributes:
      parts: the splits by their use, such as "train" and "test".
      absent: the names of the learned classes of which there is no image to test.
      warnings: what makes the numbers say less than they seem to.
    """

    parts: Mapping[str, Split]
    absent: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        data: Dataset,
        train: Source,
        test: Source,
        learned: np.ndarray | None = None,
        tested: np.ndarray | None = None,
    ) -> Splits:
        """Returns the recipe's splits, with a warning if there are absent classes.

        Args:
          data: names them.
          train: the images to train on.
          test: the images to test on.
          learned: labels of the images that were used of `train`, integer [N]; None for all.
          tested: labels of the images that were used of `test`, integer [M]; None for all, of
            which the classes do not matter.
        """
        parts = {
            "train": Split.of(train, data.train_split, learned),
            "test": Split.of(test, data.eval_split, tested),
        }
        absent = [] if tested is None else _absent(train, learned, tested)
        if not absent:
            return cls(parts)
        classes = "one class" if len(absent) == 1 else f"{len(absent)} classes"
        text = (
            f"The images to test lack {classes} of the training split: {listed(absent)}. The "
            "accuracy is that of the others."
        )
        return cls(parts, absent, [text])

    def also(self, use: str, split: Split) -> Splits:
        """Returns these splits and another one."""
        return dataclasses.replace(self, parts={**self.parts, use: split})

    def warned(self, warnings: Sequence[str]) -> Splits:
        """Returns the same with further warnings."""
        return dataclasses.replace(self, warnings=[*warnings, *self.warnings])

    def record(self) -> dict[str, Any]:
        """Returns the part of a result that tells of them."""
        found = {"absent_classes": list(self.absent), "warnings": list(self.warnings)}
        return {"splits": dict(self.parts), **{name: rows for name, rows in found.items() if rows}}

    def lines(self) -> str:
        """Returns the same in words, to print with the numbers."""
        lines = [f"{use}: {split}" for use, split in self.parts.items()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def _absent(train: Source, learned: np.ndarray | None, tested: np.ndarray) -> list[str]:
    classes = np.arange(train.num_classes) if learned is None else np.unique(learned)
    return [train.class_names[label] for label in np.setdiff1d(classes, tested) if label >= 0]
