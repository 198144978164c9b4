"""Similarities for losses of single pairs: an anchor's positive, and negatives from one view.

The losses that the SimCLR paper compares with NT-Xent (tables 2 and 4) take an anchor's negatives
from the view of its positive alone (appendix B.10).

Legend: B examples per replica, G examples on all replicas, P projection, K anchors of each example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.objectives.projections import (
    gathered,
    image_numbers,
    normalized,
    own_columns,
    rows,
    two_views,
)
from simclr_tf.objectives.view_metrics import view_metrics

# Beyond every similarity.
_FAR = 1e9


class Pairs(NamedTuple):
    """Similarities of anchors, view 1, view 2 and then small views against each of the two.

    Attributes:
        positive: [K, B, 1] float32, similarity to the anchor's positive.
        others: [K, B, G] float32, similarities to the view that holds the positive.
        negative: [B, G] bool, which of them are of other images.
    """

    positive: tf.Tensor
    others: tf.Tensor
    negative: tf.Tensor

    def share(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns this replica's share of the mean over all anchors, of losses [K, B]."""
        anchors, _, everyone = self.others.shape
        return tf.reduce_sum(losses) / (anchors * everyone)

    def over_negatives(self, loss: Callable[[tf.Tensor], tf.Tensor], semi_hard: bool) -> tf.Tensor:
        """Returns [K, B], the mean over each anchor's negatives of the loss of their similarity.

        An anchor without negatives has 0.

        Args:
            loss: [K, B, n] similarities to their losses.
            semi_hard: Whether only the semi-hard negative counts: the most similar of those less
                similar than the positive, or the least similar of all if there is none (Schroff et
                al., FaceNet, https://arxiv.org/abs/1503.03832, section 3.2).
        """
        values, counts = self.others, self.negative
        if semi_hard:
            behind = self.negative & (values < self.positive)
            nearest = tf.reduce_max(tf.where(behind, values, -_FAR), axis=2, keepdims=True)
            farthest = tf.reduce_min(tf.where(counts, values, _FAR), axis=2, keepdims=True)
            counts = tf.reduce_any(counts, axis=1, keepdims=True)
            values = tf.where(nearest > -_FAR, nearest, farthest)
            values = tf.where(counts, values, 0.0)
        losses = tf.where(counts, loss(values), 0.0)
        number = tf.reduce_sum(tf.cast(counts, tf.float32), axis=1)
        return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=2), number)


def pairs_of(
    z: tf.Tensor, images: tf.Tensor | None, small: tf.Tensor | None, normalize: bool
) -> tuple[Pairs, dict[str, tf.Tensor]]:
    """Compares the views in z, and small views with them; see `base.ViewLoss` for the arguments.

    Memory holds several tensors of K * B * G numbers.

    Returns:
        The similarities, cosines if `normalize` and else products, and the metrics of z.
    """
    z = two_views(z, normalize)
    everyone = gathered(z)
    batch, dim = z.shape[0] // 2, z.shape[1]
    views = tf.reshape(everyone, [2, -1, dim])
    image, every_image = image_numbers(images, batch)
    others = tf.matmul(tf.reshape(z, [2, batch, dim]), tf.reverse(views, [0]), transpose_b=True)
    if small is not None:
        to_both = tf.matmul(rows(small, normalize), everyone, transpose_b=True)
        by_view = tf.reshape(to_both, [-1, batch, 2, others.shape[2]])
        to_each = tf.transpose(by_view, [2, 0, 1, 3])
        others = tf.concat([others, tf.reshape(to_each, [-1, *others.shape[1:]])], axis=0)
    own = own_columns(batch)[0][:, tf.newaxis] == tf.range(others.shape[2])
    positive = tf.reduce_sum(tf.where(own, others, 0.0), axis=2, keepdims=True)
    found = Pairs(positive, others, image[:, tf.newaxis] != every_image)
    large = Pairs(positive[:2], others[:2], found.negative)
    if normalize:
        return found, _metrics(z, everyone, large, cosines=large)
    unit, everyone = normalized(z), normalized(everyone)
    views = tf.reverse(tf.reshape(everyone, views.shape), [0])
    cosines = tf.matmul(tf.reshape(unit, [2, batch, dim]), views, transpose_b=True)
    return found, _metrics(unit, everyone, large, cosines=large._replace(others=cosines))


def words_of_negatives(global_batch: int, semi_hard: bool, normalize: bool) -> str:
    """Describes the negatives and the similarity, for the plan of a run."""
    which = "the semi-hard one of " if semi_hard else ""
    raw = "" if normalize else ", projections not normalized"
    return f"{which}{global_batch - 1} negatives per anchor{raw}"


def _metrics(
    unit: tf.Tensor, everyone: tf.Tensor, pairs: Pairs, cosines: Pairs
) -> dict[str, tf.Tensor]:
    ahead = pairs.negative & (pairs.others >= pairs.positive)
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), axis=2)
    return view_metrics(
        unit,
        everyone,
        top1=tf.reduce_sum(tf.cast(rank < 1, tf.float32)),
        top5=tf.reduce_sum(tf.cast(rank < 5, tf.float32)),
        negative=tf.reduce_sum(tf.stop_gradient(cosines.over_negatives(tf.identity, False))),
    )
