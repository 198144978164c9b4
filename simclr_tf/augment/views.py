"""Which views a method asks for of each image."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from simclr_tf.augment.policy import Augmentation


@dataclasses.dataclass(frozen=True)
class ViewGroup:
    """Views of one size that pass through the networks together.

    Attributes:
        name: Of the batch's tensor that holds them, [V*B, S, S, 3], view after view.
        augmentations: One for each of the V views; the same one makes different views of an image.
        size: S, their side in pixels.
    """

    name: str
    augmentations: Sequence[Augmentation]
    size: int

    @property
    def count(self) -> int:
        """V, the views of each image."""
        return len(self.augmentations)

    def runs(self) -> list[tuple[Augmentation, int]]:
        """The augmentations in order, each with the number of successive views that it makes."""
        return [(same, len(list(views))) for same, views in itertools.groupby(self.augmentations)]


def num_views(groups: Sequence[ViewGroup]) -> int:
    """The views of each image in all groups."""
    return sum(group.count for group in groups)
