"""The gradient of a contrastive batch in the memory of a part of it.

Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
https://arxiv.org/abs/2101.06983, section 3.2. The loss does not split into parts, as every image is
a negative of all others, but all that it has of an image are its projections. A first pass computes
those, part after part; the loss of all of them gives the gradient with respect to each; a second
pass computes a part again, now with its activations, and takes its gradient from there.

Both passes see the same views, which augmentation on the device makes of the same keys, and nothing
in the networks is random, so the second repeats the first. Batch normalization takes the statistics
of a part (over all replicas), in both passes, and updates the moving ones in the second, once for
each part.

Legend: B examples per replica, H W C image, P projection, n parts of B / n examples.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.batch_norm import moving_statistics_frozen
from simclr_tf.models.simclr import SimCLR, forward, representation_dim
from simclr_tf.training.probe import PROBE_METRICS, probe_numbers
from simclr_tf.training.representation import direction_sums, representation_numbers


def gradients_in_microbatches(
    simclr: SimCLR,
    contrastive_loss: Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]],
    batch: dict[str, tf.Tensor],
    count: int,
    views: Callable[[dict[str, tf.Tensor]], tf.Tensor] = operator.itemgetter("images"),
    scale: tf.Tensor | float = 1.0,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """What `gradients_at_once` returns, from two passes over the parts of a batch.

    Args:
      simclr: the models.
      contrastive_loss: projections of this replica -> (its share of the loss, shares of metrics).
      batch: 'labels' [B] and what `views` takes; every tensor has B rows, or 2B of which the first
        B are for view 1.
      count: n, which divides B.
      views: some examples' rows of each of the batch's tensors -> their images, view 1 of all and
        then view 2: [2B, H, W, C] of all examples.
      scale: gradients are those of so many times the loss.

    Returns:
      This replica's shares of the step's numbers, and of all trainable variables' gradients.
    """
    variables = [v.value for v in simclr.trainable_variables]
    rows = 2 * batch["labels"].shape[0] // count
    dim = simclr.projection_head.outputs[-1].shape[-1]

    def embed(i, state):
        parts, directions = state
        with moving_statistics_frozen():
            outputs = forward(simclr, views(_part(batch, i, count)), training=True)
        parts = tf.tensor_scatter_nd_update(parts, [[i]], outputs.projection[tf.newaxis])
        return parts, directions + direction_sums(outputs.representation)

    nothing = tf.zeros([count, rows, dim]), tf.zeros([representation_dim(simclr.encoder) + 1])
    parts, directions = _for_each_part(count, embed, nothing)
    projections = _by_views(parts)
    with tf.GradientTape() as tape:
        tape.watch(projections)
        loss, numbers = contrastive_loss(projections)
        scaled = loss * scale
    numbers |= representation_numbers(directions, rows * count)
    slopes = _by_parts(tape.gradient(scaled, projections), count)

    def learn(i, state):
        gradients, probe = state
        part = _part(batch, i, count)
        images = views(part)
        with tf.GradientTape() as tape:
            outputs = forward(simclr, images, training=True)
            means = probe_numbers(outputs.probe_logits, part["labels"])
            shares = {name: mean / count for name, mean in means.items()}
            # Its gradient with respect to the projections, which is all that counts, is `slopes`.
            taught = tf.reduce_sum(outputs.projection * tf.gather(slopes, i))
            taught += shares.get("probe_loss", 0.0) * scale
        gradients = [
            a + b for a, b in zip(gradients, tape.gradient(taught, variables), strict=True)
        ]
        return gradients, {name: probe[name] + share for name, share in shares.items()}

    start = {name: tf.zeros([]) for name in (PROBE_METRICS if simclr.probe else ())}
    gradients, probe = _for_each_part(count, learn, ([tf.zeros_like(v) for v in variables], start))
    return {"contrastive_loss": loss} | numbers | probe, gradients


def _part(batch: dict[str, tf.Tensor], i: tf.Tensor, count: int) -> dict[str, tf.Tensor]:
    """What part `i` of the examples has of every tensor: its rows, or those of both views."""
    size = batch["labels"].shape[0] // count

    def rows_of_part(tensor: tf.Tensor) -> tf.Tensor:
        parts = tf.reshape(tensor, [-1, count, size, *tensor.shape[1:]])
        return tf.reshape(tf.gather(parts, i, axis=1), [-1, *tensor.shape[1:]])

    return {name: rows_of_part(tensor) for name, tensor in batch.items()}


def _by_views(parts: tf.Tensor) -> tf.Tensor:
    """[n, 2B/n, P], each part with its two views, to [2B, P], view 1 of all and then view 2."""
    count, rows, dim = parts.shape
    views = tf.transpose(tf.reshape(parts, [count, 2, rows // 2, dim]), [1, 0, 2, 3])
    return tf.reshape(views, [count * rows, dim])


def _by_parts(views: tf.Tensor, count: int) -> tf.Tensor:
    """The inverse of `_by_views`."""
    rows, dim = views.shape
    parts = tf.transpose(tf.reshape(views, [2, count, -1, dim]), [1, 0, 2, 3])
    return tf.reshape(parts, [count, rows // count, dim])


def _for_each_part(count: int, body: Callable[[tf.Tensor, Any], Any], state: Any) -> Any:
    """Passes `state` through `body(i, state)` for i = 0 ... count - 1, one after the other."""
    if collectives.usable_in_loops():
        _, state = tf.while_loop(
            lambda i, _: i < count,
            lambda i, state: (i + 1, body(i, state)),
            (tf.constant(0), state),
            parallel_iterations=1,
            maximum_iterations=count,
        )
        return state
    for i in range(count):
        # Or the parts, of which the program now has one copy each, would be computed together.
        with tf.control_dependencies(tf.nest.flatten(state)):
            state = body(tf.constant(i), state)
    return state
