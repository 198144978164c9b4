"""The interface of a method: its networks, its loss, and what it does after each update.

Legend: B examples per replica, V views, D representation, G examples over all replicas.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from simclr_tf.augment.views import ViewGroup
from simclr_tf.methods.rules import Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks

Tensors = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Method(abc.ABC):
    """What a run trains, and by which loss.

    A method is built once, inside the strategy's scope, by a gin factory of `encoder` (`image_size`
    -> model) and `image_size`; the precision is that of Keras' dtype policy. What the step calls is
    part of the replica function: static shapes, no string, no gin.

    One step, on every replica:

        1. `targets(batch)`, outside of the gradient;
        2. `embed(batch, training=True)` and `loss(embedded, targets)`, inside of it;
        3. the gradients, summed over replicas, pass through `transform_gradients`;
        4. the optimizer updates `networks`;
        5. `after_update(step, targets)`.

    In micro-batches 1 and the first half of 2 see some examples at a time, and `loss` sees all of
    them: it must take what it needs of an image from `embed` and `targets`.

    A subclass is a dataclass too, whose fields are what it needs beside these; the attributes after
    `state` belong to the class.

    Attributes:
        networks: Trained; hold "encoder".
        views: What the method asks for of each image.
        followers: Networks without gradient that are saved, such as target or key networks.
        fixed: Networks without gradient that are not saved, such as a teacher.
        state: Variables beside those of networks, by name: the group "method" of a checkpoint.
            What `after_update` assigns must be equal on all replicas.
        name: Of the method, in words.
        metrics: Of `loss`; the first is the loss itself, which `loss` returns beside the others.
        embedded_specs: What `embed` returns of one example, for micro-batches: name -> shape
            [v, ...] of its v rows, and dtype. None where a batch cannot be embedded in parts.
        target_specs: The same of `targets`.
    """

    networks: Networks
    views: Sequence[ViewGroup]
    _: dataclasses.KW_ONLY
    followers: Networks = dataclasses.field(default_factory=lambda: Networks({}))
    fixed: Networks = dataclasses.field(default_factory=lambda: Networks({}))
    state: Mapping[str, keras.Variable] = dataclasses.field(default_factory=dict)

    name: ClassVar[str]
    metrics: ClassVar[Sequence[Metric]]
    embedded_specs: ClassVar[Mapping[str, tf.TensorSpec] | None] = None
    target_specs: ClassVar[Mapping[str, tf.TensorSpec]] = {}

    def targets(self, batch: Tensors) -> Tensors:
        """Returns what the loss needs without a gradient, each with V*B rows, view after view.

        Args:
            batch: "labels" and "index" [B], and the views by their group's name, float32.
        """
        del batch
        return {}

    @abc.abstractmethod
    def embed(self, batch: Tensors, training: bool) -> Tensors:
        """Passes the views through the networks.

        Args:
            batch: As for `targets`.
            training: Whether batch normalization uses, and records, the statistics of the batch.

        Returns:
            "representation" [V*B, D] float32, which observers see, and what `loss` needs, each with
            V*B rows, view after view.
        """

    @abc.abstractmethod
    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        """Computes this replica's share of the loss: the sum over replicas is the loss.

        Args:
            embedded: What `embed` returned for all of the replica's examples, without
                "representation".
            targets: What `targets` returned for them.

        Returns:
            The share, a float32 scalar, and the `metrics` after the first, float32 scalars.
        """

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Returns what the optimizer applies, for `networks.trainable_variables`.

        Args:
            step: Counts the updates, this one not included: an int64 scalar.
            gradients: Summed over replicas.
        """
        del step
        return gradients

    def after_update(self, step: keras.Variable, targets: Tensors) -> None:  # noqa: B027
        """Assigns to `followers` and `state`: the same values on every replica.

        Args:
            step: Counts the updates, this one included: an int64 scalar.
            targets: What `targets` returned in this step.
        """

    def expected(self, global_batch: int) -> tuple[float, float] | None:
        """The loss of guessing, and the least that training can come to; None where unknown."""
        del global_batch
        return None

    def faults(self) -> Sequence[Finding]:
        """What is wrong with the settings before the first step."""
        return ()

    def rules(self) -> Sequence[Chain]:
        """What the numbers of a run can say is wrong with it."""
        return ()

    def exported(self) -> Mapping[str, keras.Model]:
        """The networks that a SavedModel holds, of this method's variables."""
        return {"encoder": self.networks["encoder"]}

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        """What the plan says of the method, by subject."""
        del global_batch
        return {}

    def words(self, numbers: Mapping[str, float]) -> str:
        """What the progress line says of a report's numbers."""
        loss = self.metrics[0]
        return f"{loss.title or loss.name} {numbers[loss.name]:.3f}"
