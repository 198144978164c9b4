"""The views that a method requests of each image."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from simclr_tf.augment.policy import Augmentation


@dataclasses.dataclass(frozen=True)
class ViewGroup:
    """Views of one size that pass through the networks together.

    Attributes:
        name: Name of the batch's tensor that holds the views, [V*B, S, S, 3], view after view.
        augmentations: One for each of the V views; a repeated one still makes different views.
        size: S, the side of the views in pixels.
    """

    name: str
    augmentations: Sequence[Augmentation]
    size: int

    @property
    def count(self) -> int:
        """V, the number of views of each image."""
        return len(self.augmentations)

    def parts(self) -> list[tuple[Augmentation, int]]:
        """Returns the augmentations in order, each with its number of successive views."""
        return [(same, len(list(views))) for same, views in itertools.groupby(self.augmentations)]


def num_views(groups: Sequence[ViewGroup]) -> int:
    """Returns the number of views of each image in all groups."""
    return sum(group.count for group in groups)
