"""The gradient of a contrastive batch in the memory of one part of the batch.

Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
https://arxiv.org/abs/2101.06983, section 3.2. The loss does not split into parts, as every image is
a negative of all others, but it depends on an image only through its projections. A first pass
computes the projections, part after part; the loss gives the gradient with respect to each of them;
a second pass computes each part again, now with its activations, and continues the gradient there.

Both passes see the same views, which augmentation on the device makes from the same keys, and
nothing in the networks is random, so the second repeats the first. Batch normalization uses the
statistics of a part (over all replicas) in both passes; the second pass updates the moving ones,
once for each part.

Legend: B examples per replica, V views, n parts of B / n examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.batch_norm import moving_statistics_frozen
from simclr_tf.methods import contract
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.models.networks import representation_dim
from simclr_tf.training.representation import direction_sums, representation_numbers


def gradients_in_microbatches(
    method: Method,
    batch: Tensors,
    count: int,
    views: Callable[[Tensors], Tensors],
    scale: tf.Tensor | float = 1.0,
) -> tuple[Tensors, list[tf.Tensor], Tensors]:
    """Returns the same as `gradients_at_once`, from two passes over the parts of a batch.

    Args:
      method: the method that is trained; must have `embedded_specs`.
      batch: 'labels' [B] and the inputs of `views`; every tensor has B rows, or V*B by view.
      count: n, which divides B.
      views: some examples' rows of each of the batch's tensors -> the same with the method's views.
      scale: factor of the loss whose gradients are taken.

    Returns:
      This replica's shares of the step's numbers, and of all trainable variables' gradients; the
      inputs of the loss for all examples.
    """
    parts = _Parts(batch, count, views)

    def embed(i, state):
        embedded, targets, directions = state
        part = parts.views_of(i)
        with moving_statistics_frozen():
            representation, found = contract.embed(method, part)
        directions += direction_sums(representation)
        return _put(embedded, i, found), _put(targets, i, method.targets(part)), directions

    dim = representation_dim(method.networks["encoder"])
    start = parts.room(method.embedded_specs), parts.room(method.target_specs), tf.zeros([dim + 1])
    embedded, targets, directions = _for_each_part(count, embed, start)
    embedded, targets = parts.joined(embedded), parts.joined(targets)
    with tf.GradientTape() as tape:
        tape.watch(embedded)
        loss, numbers = contract.loss(method, embedded, targets)
        scaled = loss * scale
    rows = method.embedded_views * parts.size * count
    numbers |= representation_numbers(directions, rows)
    # From some of them only metrics are computed.
    slopes = parts.split(tape.gradient(scaled, embedded, unconnected_gradients="zero"))
    gradients = _second_pass(method, parts, slopes)
    return (
        {method.metrics[0].name: loss} | numbers,
        gradients,
        contract.inputs(method, embedded, targets),
    )


def _second_pass(method: Method, parts: _Parts, slopes: Tensors) -> list[tf.Tensor]:
    """Computes gradients by the variables from gradients by the embedded tensors."""
    variables = [v.value for v in method.networks.trainable_variables]

    def learn(i, gradients):
        part = parts.views_of(i)
        with tf.GradientTape() as tape:
            embedded = method.embed(part, training=True)
            # Only the gradient of this sum by the embedded tensors matters: it is `slopes`.
            taught = tf.add_n(
                [
                    tf.reduce_sum(embedded[name] * tf.gather(slope, i))
                    for name, slope in slopes.items()
                ]
            )
        found = tape.gradient(taught, variables)
        return [a + b for a, b in zip(gradients, found, strict=True)]

    return _for_each_part(parts.count, learn, [tf.zeros_like(v) for v in variables])


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A batch in `count` parts; tensors have v rows for each example, view after view."""

    batch: Tensors
    count: int
    views: Callable[[Tensors], Tensors]

    @property
    def size(self) -> int:
        """Returns the number of examples in a part."""
        return self.batch["labels"].shape[0] // self.count

    def views_of(self, i: tf.Tensor) -> Tensors:
        """Returns the examples of part `i`, with their views."""

        def rows_of_part(tensor: tf.Tensor) -> tf.Tensor:
            parts = tf.reshape(tensor, [-1, self.count, self.size, *tensor.shape[1:]])
            return tf.reshape(tf.gather(parts, i, axis=1), [-1, *tensor.shape[1:]])

        return self.views({name: rows_of_part(tensor) for name, tensor in self.batch.items()})

    def room(self, specs: Mapping[str, tf.TensorSpec]) -> Tensors:
        """Returns zeros for the rows of all parts: name -> [n, v*B/n, ...]."""
        return {
            name: tf.zeros([self.count, spec.shape[0] * self.size, *spec.shape[1:]], spec.dtype)
            for name, spec in specs.items()
        }

    def joined(self, rooms: Tensors) -> Tensors:
        """Reorders [n, v*B/n, ...], each part with its v views, to [v*B, ...], view after view."""
        joined = {}
        for name, room in rooms.items():
            row = room.shape[2:]
            views_first = _swapped(tf.reshape(room, [self.count, -1, self.size, *row]))
            joined[name] = tf.reshape(views_first, [self.count * room.shape[1], *row])
        return joined

    def split(self, tensors: Tensors) -> Tensors:
        """Inverts `joined`."""
        split = {}
        for name, tensor in tensors.items():
            row = tensor.shape[1:]
            parts_first = _swapped(tf.reshape(tensor, [-1, self.count, self.size, *row]))
            split[name] = tf.reshape(parts_first, [self.count, -1, *row])
        return split


def _swapped(tensor: tf.Tensor) -> tf.Tensor:
    """Exchanges the first two axes."""
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def _put(room: Tensors, i: tf.Tensor, found: Tensors) -> Tensors:
    return {
        name: tf.tensor_scatter_nd_update(tensor, [[i]], found[name][tf.newaxis])
        for name, tensor in room.items()
    }


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
        # Without this, TensorFlow would compute the parts, now separate copies, in parallel.
        with tf.control_dependencies(tf.nest.flatten(state)):
            state = body(tf.constant(i), state)
    return state
