"""The interface of a method: its networks, its loss, and its work after each update.

Legend: B examples per replica, V views, D representation, G examples over all replicas.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from simclr_tf.augment.views import ViewGroup, num_views
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.rules import Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks

Tensors = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Method(abc.ABC):
    """The networks that a run trains, and the loss.

    A gin factory with the parameters `encoder` (`image_size` -> model) and `image_size` builds a
    method once, inside the strategy's scope, in the precision of Keras' dtype policy. If it also
    has the parameter `total_steps`, it receives the number of updates of the run, and by
    `num_examples` that of the images. Functions that the step calls are part of the replica
    function: static shapes, no string, no gin.

    One step, on every replica:

        1. `targets(batch)`, outside the gradient tape;
        2. `embed(batch, training=True)` and `loss(embedded, targets)`, inside it;
        3. the gradients, summed over replicas, pass through `transform_gradients`;
        4. the optimizer updates `networks`;
        5. `after_update(step, targets)`.

    With micro-batches, `targets` and `embed` see some examples at a time and `loss` sees all of
    them, so `loss` must take everything it needs of an image from their results.

    A subclass is a dataclass too, with additional fields as it needs; the attributes after `state`
    belong to the class.

    Attributes:
        networks: The trained networks, with "encoder" among them.
        views: The views that the method requests of each image.
        followers: Networks without gradient that are saved, such as target or key networks.
        fixed: Networks without gradient that are not saved, such as a teacher.
        state: Variables beside those of networks, by name: the group "method" of a checkpoint.
            Values that `after_update` assigns must be equal on all replicas.
        name: Name of the method, in words.
        metrics: Metrics of `loss`; the first is the loss itself, which `loss` returns separately.
        embedded_specs: Results of `embed` for one example, for micro-batches: name -> shape
            [v, ...] of its v rows, and dtype. None if a batch cannot be embedded in parts.
        target_specs: The same for `targets`.
        min_batch: Fewest images of a global batch, such as 2 where images are compared.
        needs_labels: Whether the method cannot train on data without labels.
        needs_positions: Whether "index" must be the position of an image in the data, from 0 to
            N - 1, as a memory of each image needs it, and not just a number of its own.
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
    min_batch: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False
    needs_positions: ClassVar[bool] = False

    def __post_init__(self):
        missing = [name for name in ("name", "metrics") if not getattr(self, name, None)]
        if missing:
            raise InvalidArgument(
                "A method's class must have a name and metrics, the loss first. Received: "
                f"{type(self).__name__}, which lacks {' and '.join(missing)}."
            )
        if "encoder" not in self.networks:
            raise InvalidArgument(
                "A method must train a network named 'encoder'. Received: "
                f"{type(self).__name__} with {list(self.networks)}."
            )
        views = self.views if isinstance(self.views, Sequence) else []
        if not views or not all(isinstance(group, ViewGroup) for group in views):
            raise InvalidArgument(
                "A method must request views: a list of ViewGroup. Received: "
                f"{type(self).__name__} with views={self.views!r}."
            )

    @property
    def embedded_views(self) -> int:
        """V of `embed`: all views of an image, or fewer where `targets` takes the others."""
        return num_views(self.views)

    def targets(self, batch: Tensors) -> Tensors:
        """Returns inputs of the loss without gradient, each with V*B rows, view after view.

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
            "representation" [V*B, D] float32, for observers, and the inputs of `loss`, each with
            V*B rows, view after view, where V is `embedded_views`.
        """

    @abc.abstractmethod
    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        """Computes this replica's share of the loss: the sum over replicas is the loss.

        Args:
            embedded: Results of `embed` for all of the replica's examples, without
                "representation".
            targets: Results of `targets` for them.

        Returns:
            The share, a float32 scalar, and the `metrics` after the first, float32 scalars.
        """

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Returns the gradients to apply to `networks.trainable_variables`.

        Args:
            step: Number of updates so far, this one excluded: an int64 scalar.
            gradients: Gradients summed over replicas.
        """
        del step
        return gradients

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:  # noqa: B027
        """Updates `followers` and `state`, with the same values on every replica.

        Args:
            step: Number of updates so far, this one included: an int64 scalar.
            inputs: Those of `loss` in this step: results of `embed` and of `targets`.
        """

    def expected(self, global_batch: int) -> tuple[float, float] | None:
        """Returns the loss of guessing and the lowest reachable loss; None if unknown."""
        del global_batch
        return None

    def check(
        self, *, num_examples: int, global_batch: int, microbatch: int, replicas: int
    ) -> None:
        """Raises InvalidArgument if the method cannot train on such data in such batches.

        Args:
            num_examples: Images of the data set.
            global_batch: G.
            microbatch: Images that are embedded at a time, over all replicas; at most G.
            replicas: R.
        """
        if global_batch < self.min_batch:
            raise InvalidArgument(
                f"A batch of {self.name} must have at least {self.min_batch} images. Received: "
                f"global_batch_size={global_batch}."
            )

    def faults(self) -> Sequence[Finding]:
        """Returns what is wrong with the settings, before the first step."""
        return ()

    def rules(self) -> Sequence[Chain]:
        """Returns rules that find faults in the numbers of a run."""
        return ()

    def exported(self) -> Mapping[str, keras.Model]:
        """Returns the networks to export as SavedModel, with this method's variables."""
        return {"encoder": self.networks["encoder"]}

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        """Returns the plan's lines on the method, by subject."""
        del global_batch
        return {}

    def words(self, numbers: Mapping[str, float]) -> str:
        """Describes a report's numbers for the progress line."""
        loss = self.metrics[0]
        return f"{loss.title or loss.name} {numbers[loss.name]:.3f}"
