"""The loss of CPC v2 (https://arxiv.org/abs/1905.09272, section 2 and the appendix's pseudo-code).

Legend: B examples per replica, R replicas, G = B*R, g patches in a row, T target, d directions, K
offsets, S groups on a replica, M examples of a group.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import gin
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.metrics import Metric

# Where a patch lies that is predicted: rows down and columns to the right.
DIRECTIONS = {"down": (1, 0), "up": (-1, 0), "right": (0, 1), "left": (0, -1)}
# "prediction_top1": share of predictions whose patch is the most similar of all in the group.
# "prediction_in_image": share of those for which a patch of the same image is.
METRICS = (
    Metric("prediction_top1", "predicted patches found"),
    Metric("prediction_in_image", "predicted images found"),
)


@dataclasses.dataclass(frozen=True)
class CPCLoss:
    """Cross entropy of finding a predicted patch among those of a group of images.

    It is the sum over directions and offsets of the mean over all predictions. The similarity is a
    product of vectors of any length. The loss returned is this replica's share: shares sum over
    replicas to the loss of the global batch, and so do their gradients.

    >>> loss = CPCLoss(directions=("down",), offsets=(1,), scale=1.0)
    >>> targets = tf.reshape(tf.eye(4), [1, 2, 2, 4])
    >>> share, _ = loss(9.0 * tf.roll(targets, -1, axis=1)[:, :, :, None], targets)
    >>> print(f"{share:.4f}, by chance {loss.chance(1, 2):.4f}")
    0.0004, by chance 1.3863

    Attributes:
        directions: Names among `DIRECTIONS`; v2 has all four, v1 "down" alone.
        offsets: How many patches further the predicted one lies.
        scale: Factor of the predictions.
        negative_groups: Parts of the global batch, in each of which all patches of all images are
            compared; 1 compares those of the whole batch. In the paper's code each GPU is one.

    Raises:
        InvalidArgument: If a direction is unknown, or a number out of range.
    """

    directions: Sequence[str] = tuple(DIRECTIONS)
    offsets: Sequence[int] = (2,)
    scale: float = 0.1
    negative_groups: int = 1

    def __post_init__(self):
        for values in (self.directions, self.offsets):
            if not values or len(set(values)) < len(values):
                raise InvalidArgument(
                    "cpc_loss needs directions and offsets, each named once. Received: "
                    f"directions={self.directions}, offsets={self.offsets}."
                )
        if not set(self.directions) <= set(DIRECTIONS):
            raise InvalidArgument(
                f"cpc_loss.directions must be among {', '.join(DIRECTIONS)}. Received: "
                f"{self.directions}."
            )
        if not (min(self.offsets) >= 1 and self.scale > 0 and self.negative_groups >= 1):
            raise InvalidArgument(
                "cpc_loss needs offsets and negative_groups of at least 1, and a scale above 0. "
                f"Received: offsets={self.offsets}, negative_groups={self.negative_groups}, "
                f"scale={self.scale}."
            )

    def __call__(
        self, predictions: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this replica's share of the loss and of the metrics.

        Args:
            predictions: [B, g, g, d, K*T] float32, at the place of the patch that predicts.
            targets: [B, g, g, T] float32, of the same images.

        Returns:
            The share of the loss, float32 scalar, and float32 scalars named by `METRICS`.
        """
        candidates, first = self._candidates(targets)
        dim = targets.shape[-1]
        terms = []
        for d, direction in enumerate(self.directions):
            for k, offset in enumerate(self.offsets):
                own = predictions[:, :, :, d, k * dim : (k + 1) * dim]
                moves = [offset * step for step in DIRECTIONS[direction]]
                terms.append(self._term(own, candidates, first, moves))
        losses, found, in_image = (tf.add_n(parts) for parts in zip(*terms, strict=True))
        return losses, {
            "prediction_top1": found / len(terms),
            "prediction_in_image": in_image / len(terms),
        }

    def chance(self, images: int, side: int) -> float:
        """Returns the loss of equal targets, with so many images in a batch of g x g patches."""
        terms = len(self.directions) * len(self.offsets)
        return terms * math.log(images // self.negative_groups * side**2)

    def _candidates(self, targets: tf.Tensor) -> tuple[tf.Tensor, int | tf.Tensor]:
        """Returns targets [S, M*g*g, T], and which of a group's M images is the first one here."""
        patches, dim = math.prod(targets.shape[1:3]), targets.shape[3]
        batch, replicas = targets.shape[0], collectives.num_replicas()
        groups, first = self.negative_groups, 0
        if groups >= replicas:
            return tf.reshape(targets, [groups // replicas, -1, dim]), first
        everyone = collectives.all_gather(tf.reshape(targets, [batch * patches, dim]))
        together = replicas // groups
        parts = tf.reshape(everyone, [groups, together * batch * patches, dim])
        own, place = collectives.replica_id() // together, collectives.replica_id() % together
        return tf.gather(parts, own)[tf.newaxis], place * batch

    def _term(
        self,
        predictions: tf.Tensor,
        candidates: tf.Tensor,
        first: int | tf.Tensor,
        moves: Sequence[int],
    ) -> _Term:
        """Computes the term of one direction and offset.

        Args:
            predictions: [B, g, g, T].
            candidates: [S, M*g*g, T].
            first: As `_candidates` returns it.
            moves: Rows down and columns to the right from a context to the predicted patch.
        """
        batch, side, _, dim = predictions.shape
        groups = candidates.shape[0]
        starts = [max(0, -move) for move in moves]
        sides = [side - abs(move) for move in moves]
        used = tf.slice(predictions, [0, *starts, 0], [batch, *sides, dim])
        queries = self.scale * tf.reshape(used, [groups, -1, dim])
        logits = tf.matmul(queries, candidates, transpose_b=True)  # [S, Q, M*g*g]
        images, rows, columns = tf.meshgrid(
            tf.range(batch // groups) + first,
            *(tf.range(n) + s + move for n, s, move in zip(sides, starts, moves, strict=True)),
            indexing="ij",
        )
        labels = tf.reshape((images * side + rows) * side + columns, [1, -1])
        labels = tf.broadcast_to(labels, logits.shape[:2])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        nearest = tf.argmax(logits, axis=2, output_type=tf.int32)
        total = math.prod(labels.shape) * collectives.num_replicas()

        def share(hits: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(tf.cast(hits, tf.float32)) / total

        same = nearest // side**2 == labels // side**2
        return _Term(tf.reduce_sum(losses) / total, share(nearest == labels), share(same))


class _Term(NamedTuple):
    """Shares of a term's loss, of patches that are found, and of images that are."""

    loss: tf.Tensor
    found: tf.Tensor
    in_image: tf.Tensor


@gin.configurable
def cpc_loss(
    directions: Sequence[str] = tuple(DIRECTIONS),
    offsets: Sequence[int] = (2,),
    scale: float = 0.1,
    negative_groups: int = 1,
) -> CPCLoss:
    """Returns the loss of CPC v2; see `CPCLoss` for the arguments."""
    return CPCLoss(tuple(directions), tuple(offsets), scale, negative_groups)
