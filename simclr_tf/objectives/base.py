"""What SimCLR asks of a loss of two views' projections."""

from __future__ import annotations

from typing import ClassVar, Protocol

import tensorflow as tf


class ViewLoss(Protocol):
    """A loss of projections, `simclr.loss` of a recipe.

    Attributes:
        tells_learning: Whether the loss of a run that learns goes from chance towards the floor,
            so that a run whose loss does not is at fault.
        softmax_temperature: Divisor of cosines in a softmax; None if the loss has none.
    """

    tells_learning: ClassVar[bool]

    @property
    def softmax_temperature(self) -> float | None: ...

    def __call__(
        self, z: tf.Tensor, images: tf.Tensor | None = None, small: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss, and of the `view_metrics.METRICS`.

        Shares sum over replicas to the loss of the global batch, and so do their gradients.

        Args:
            z: [2B, P] projections of any float dtype, view 1 of all local examples, then view 2.
            images: [B] int32, the number of each local example's image, from 0 on; None if no
                image occurs twice in the global batch.
            small: [V*B, P] projections of V more views of each local example, view after view,
                each compared with both views in z; None for no more views.
        """

    def chance(self, global_batch: int) -> float:
        """Returns the loss of projections that say nothing of their image."""

    def floor(self, global_batch: int) -> float:
        """Returns the loss for equal positives, and negatives at right angles."""

    def words(self, global_batch: int) -> str:
        """Describes the loss for the plan of a run."""
