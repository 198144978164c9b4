"""What methods of two views share: an encoder, a projection head, and a loss of projections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.contrastive_rules import temperature_fault
from simclr_tf.methods.rules import Finding
from simclr_tf.models.heads import last_projection
from simclr_tf.models.networks import Networks, representation_dim
from simclr_tf.objectives.base import ViewLoss
from simclr_tf.objectives.sup_con import SupCon

# The result of `embed` for each group of views.
_PROJECTIONS = {"images": "projection", "small": "small_projection"}


@dataclasses.dataclass(frozen=True, eq=False)
class Contrastive(Method):
    """Encoder and projection head, which see the views of a group in one pass.

    Attributes:
        networks: "encoder", images [N, S, S, 3] to a dict with "final_avg_pool" [N, D], and
            "projection_head", [N, D] to a dict "projection_0" ... "projection_n", the last z.
        views: A group "images" of two views, and perhaps one "small" of smaller ones.
        objective: The loss of z.
    """

    objective: ViewLoss | SupCon

    min_batch = 2

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        dim = self.networks["projection_head"].outputs[-1].shape[-1]
        return {_PROJECTIONS[v.name]: tf.TensorSpec([v.count, dim]) for v in self.views}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        encoder, head = self.networks["encoder"], self.networks["projection_head"]
        representations, embedded = [], {}
        for group in self.views:
            representation = encoder(batch[group.name], training=training)["final_avg_pool"]
            projections = head(representation, training=training)
            representations.append(representation)
            embedded[_PROJECTIONS[group.name]] = last_projection(projections)
        return {"representation": tf.concat(representations, axis=0), **embedded}

    def faults(self) -> Sequence[Finding]:
        temperature = self.objective.softmax_temperature
        fault = None if temperature is None else temperature_fault(temperature)
        return [fault] if fault else []

    def exported(self) -> Mapping[str, keras.Model]:
        return self.networks


def encoder_and_head(
    encoder: Callable[..., keras.Model],
    projection_head: Callable[..., keras.Model],
    image_size: int,
) -> Networks:
    """Builds both networks, the head for the encoder's representation."""
    model = encoder(image_size=image_size)
    head = projection_head(input_dim=representation_dim(model))
    return Networks({"encoder": model, "projection_head": head})


def two_views(
    augmentation: Callable[[], Augmentation],
    other_augmentation: Callable[[], Augmentation] | None,
    image_size: int,
) -> ViewGroup:
    """Returns the group "images": the second view is made as the first, or by another policy."""
    policies = [augmentation(), (other_augmentation or augmentation)()]
    return ViewGroup("images", policies, image_size)


def small_views(
    method: str,
    count: int,
    size: int | None,
    augmentation: Callable[[], Augmentation],
    image_size: int,
) -> list[ViewGroup]:
    """Returns the group "small" of a method's smaller views, if there are any.

    Args:
        method: The gin name of the method, for errors.
        count: Views of each image.
        size: Their side in pixels; None for half of `image_size`.
        augmentation: How they are made.
        image_size: Side of the large views in pixels.

    Raises:
        InvalidArgument: If the number is negative, or they are larger than the large ones.
    """
    if not count:
        return []
    size = size or max(image_size // 2, 1)
    if count < 0 or not 1 <= size <= image_size:
        raise InvalidArgument(
            f"{method}.small_views must be at least 0, and {method}.small_size from 1 to "
            f"data.image_size = {image_size}. Received: {count} views of {size} pixels."
        )
    return [ViewGroup("small", [augmentation()] * count, size)]


def one_pass_per_view(
    encoder: keras.Model, head: keras.Model, images: tf.Tensor, training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Passes two views one after the other, so that each has batch statistics of its own.

    Args:
        encoder: As for `Contrastive`.
        head: As for `Contrastive`.
        images: [2B, S, S, 3], view after view.
        training: Whether batch normalization uses, and records, the statistics of the batch.

    Returns:
        The representation [2B, D] and the projection [2B, P], float32, view after view.
    """
    found = []
    for view in tf.split(images, 2):
        representation = encoder(view, training=training)["final_avg_pool"]
        projections = head(representation, training=training)
        found.append((representation, last_projection(projections)))
    representation, projection = (tf.concat(views, axis=0) for views in zip(*found, strict=True))
    return representation, projection


def view_lines(views: ViewGroup) -> Mapping[str, str]:
    """Returns the plan's lines on two views that are made in different ways."""
    first, second = views.augmentations
    return {} if first == second else {"view 1": first.words, "view 2": second.words}
