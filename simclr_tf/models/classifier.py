"""A classifier on an encoder: on h, or on a layer of the projection head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.heads import first_layers, linear_probe
from simclr_tf.models.networks import Networks, representation_dim


def build_classifier(
    encoder: Callable[..., keras.Model],
    projection_head: Callable[..., keras.Model],
    *,
    image_size: int,
    num_classes: int,
    head_layers: int,
    zero_init: bool,
    seed: int,
    restore: Callable[[Mapping[str, keras.Model]], None] = lambda networks: None,
) -> Networks:
    """Builds the networks of a classifier, initialized by `seed` and then restored.

    Args:
        encoder: `image_size` -> the encoder.
        projection_head: `input_dim` -> the whole projection head.
        image_size: Side of the training images in pixels.
        num_classes: Classes to tell apart.
        head_layers: Layers of the projection head to keep below the classifier; 0 puts the
            classifier on the representation (SimCLRv2, section 2).
        zero_init: Whether the classifier starts from zeros.
        seed: Seed of the initial weights.
        restore: Fills "encoder" and, if layers of it are kept, the whole "projection_head".

    Returns:
        "encoder", "projection_head" if layers of it are kept, and "probe", the classifier.
    """
    keras.utils.set_random_seed(seed)
    parts = {"encoder": encoder(image_size=image_size)}
    width = representation_dim(parts["encoder"])
    if head_layers:
        parts["projection_head"] = projection_head(input_dim=width)
    restore(parts)
    if head_layers:
        head = first_layers(parts["projection_head"], head_layers)
        width = head.output[f"projection_{head_layers}"].shape[-1]
        parts["projection_head"] = head
    initializer = "zeros" if zero_init else None
    parts["probe"] = linear_probe(num_classes, input_dim=width, kernel_initializer=initializer)
    return Networks(parts, classifiers=("probe",))


def freeze_groups(encoder: keras.Model, groups: int) -> None:
    """Freezes the stem and the first block groups, with their batch normalization.

    Args:
        encoder: An encoder built by `models.resnet`.
        groups: -1 freezes nothing, 0 the stem, k the stem and block groups 1 to k; 4 freezes all.
    """
    if not -1 <= groups <= 4:
        raise InvalidArgument(f"Frozen block groups must be from -1 to 4. Received: {groups}.")
    if groups >= 0 and "block_group1" not in encoder.output:
        raise InvalidArgument(
            "Only the ResNets of models/resnet.py have block groups that can be frozen. Received: "
            f"{groups} for an encoder without. Set -1 to train all of it."
        )
    frozen = tuple(f"block_group{k}_" for k in range(1, groups + 1)) + ("stem_",) * (groups >= 0)
    for layer in encoder.layers:
        if layer.name.startswith(frozen):
            layer.trainable = False
