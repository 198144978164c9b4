"""Infers the architecture of a set of variables from their paths and shapes alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import keras

from simclr_tf.errors import RequestError
from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.networks import representation_dim
from simclr_tf.models.resnet import DEPTHS, resnet

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # group -> path -> shape

_USUAL_SK_RATIO = 0.0625


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything needed to build the networks.

    Attributes:
      depth: depth of the ResNet.
      width_multiplier: factor on its channel counts.
      stem: "imagenet" or "cifar".
      sk_ratio: 0 without selective kernels.
      head_layers: layers of the projection head; 0 if there is none.
      head_dim: P, or 0.
      num_classes: classes of the probe; 0 if there is none.
    """

    depth: int
    width_multiplier: float
    stem: str
    sk_ratio: float = 0.0
    head_layers: int = 0
    head_dim: int = 0
    num_classes: int = 0

    @property
    def image_size(self) -> int:
        """Side of the images that networks with this stem are usually trained on."""
        return {"imagenet": 224, "cifar": 32}[self.stem]

    def build(self) -> dict[str, keras.Model]:
        """Builds the networks, newly initialized, by the names of their groups."""
        encoder = resnet(
            depth=self.depth,
            width_multiplier=self.width_multiplier,
            stem=self.stem,
            sk_ratio=self.sk_ratio,
            image_size=self.image_size,
        )
        models = {"encoder": encoder}
        dim = representation_dim(encoder)
        if self.head_layers:
            models["projection_head"] = projection_head(
                "nonlinear", self.head_layers, self.head_dim, input_dim=dim
            )
        if self.num_classes:
            models["probe"] = linear_probe(self.num_classes, input_dim=dim)
        return models

    def recipe(self) -> str:
        """Bindings that name the architecture, for `--gin_file`."""
        lines = [
            f"data.image_size = {self.image_size}",
            f"resnet.depth = {self.depth}",
            f"resnet.width_multiplier = {self.width_multiplier!r}",
            f"resnet.stem = {self.stem!r}",
            f"resnet.sk_ratio = {self.sk_ratio!r}",
        ]
        if self.head_layers:
            lines += [
                "projection_head.kind = 'nonlinear'",
                f"projection_head.num_layers = {self.head_layers}",
                f"projection_head.output_dim = {self.head_dim}",
            ]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        parts = [f"ResNet-{self.depth} ({self.width_multiplier:g}x), {self.stem} stem"]
        if self.sk_ratio:
            parts.append(f"selective kernels (sk_ratio {self.sk_ratio:g})")
        if self.head_layers:
            parts.append(f"projection head of {self.head_layers} layers to {self.head_dim}")
        if self.num_classes:
            parts.append(f"linear classifier of {self.num_classes} classes")
        return ", ".join(parts)


def infer(shapes: Shapes) -> Architecture:
    """Returns the architecture that has variables of these shapes.

    The result may be wrong for variables that fit none; `compare` it once it is built.

    Args:
      shapes: under our groups and paths; a missing group is a missing network.

    Raises:
      RequestError: the variables do not belong to our networks.
    """
    encoder = shapes.get("encoder", {})
    stem_kernel = encoder.get("stem_conv/kernel") or encoder.get("stem_conv1/kernel")
    last_group = encoder.get("block_group4_block1_conv1/kernel")
    if stem_kernel is None or last_group is None:
        raise RequestError(
            "The source must hold a ResNet encoder of google-research/simclr or torchvision. "
            f"Received: {len(encoder)} variables of an encoder, none of them the stem's or the "
            "last block group's."
        )
    if "stem_ln/gamma" in encoder:
        raise RequestError(
            "The encoder must have batch normalization, as the ResNets of torchvision and of "
            "google-research/simclr. Received: one with layer normalization "
            "(resnet.normalization = 'layer_norm'), which only this package can run."
        )
    filters = last_group[-1]
    deep_stem = "stem_conv1/kernel" in encoder
    head_layers, head_dim = _head(shapes.get("projection_head", {}))
    return Architecture(
        depth=_depth(encoder),
        width_multiplier=filters / 512,
        stem="imagenet" if deep_stem or stem_kernel[0] == 7 else "cifar",
        sk_ratio=_sk_ratio(encoder),
        head_layers=head_layers,
        head_dim=head_dim,
        num_classes=_num_classes(shapes.get("probe", {})),
    )


def compare(expected: Shapes, found: Shapes) -> None:
    """Raises RequestError, naming the differences, unless the two are equal."""
    lines = []
    for group in {**expected, **found}:
        ours, theirs = expected.get(group, {}), found.get(group, {})
        lines += [f"  {group}: {path} is missing" for path in ours if path not in theirs]
        lines += [f"  {group}: {path} is left over" for path in theirs if path not in ours]
        lines += [
            f"  {group}: {path} is {theirs[path]}, not {ours[path]}"
            for path in ours
            if path in theirs and tuple(ours[path]) != tuple(theirs[path])
        ]
    if lines:
        shown = "\n".join(lines[:8]) + (f"\n  and {len(lines) - 8} more" if len(lines) > 8 else "")
        raise RequestError(f"The source must be one of our networks. It is not:\n{shown}")


def _depth(encoder: Mapping[str, tuple[int, ...]]) -> int:
    kind = "bottleneck" if "block_group1_block1_conv3/kernel" in encoder else "basic"
    numbers = [re.match(r"block_group(\d)_block(\d+)_", path) for path in encoder]
    blocks = tuple(
        max((int(m[2]) for m in numbers if m and int(m[1]) == group), default=0)
        for group in range(1, 5)
    )
    for depth, description in DEPTHS.items():
        if description == (kind, blocks):
            return depth
    raise RequestError(
        f"The encoder must be one of ResNet-{', '.join(map(str, DEPTHS))}. Received: {kind} blocks "
        f"in groups of {blocks}."
    )


def _sk_ratio(encoder: Mapping[str, tuple[int, ...]]) -> float:
    """Returns the paper's ratio if it gives these widths: narrow networks fit several ratios."""
    kernels = [s for p, s in encoder.items() if p.endswith("_mix_dense1/kernel")]
    if not kernels:
        return 0.0
    if all(hidden == max(int(filters * _USUAL_SK_RATIO), 32) for filters, hidden in kernels):
        return _USUAL_SK_RATIO
    filters, hidden = max(kernels)
    return hidden / filters


def _head(head: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    if not head:
        return 0, 0
    layers = max(int(re.match(r"projection_(\d+)_", path)[1]) for path in head)
    last = f"projection_{layers}"
    if f"{last}_dense/kernel" not in head or f"{last}_bn/beta" in head:
        raise RequestError(
            "A projection head must end in a layer without an offset. Received: one of "
            f"{layers} layers whose last has one or is not there, as where the end was cut off "
            "after fine-tuning from a layer in the middle. Use --encoder_only to convert the "
            "encoder without it."
        )
    return layers, head[f"{last}_dense/kernel"][-1]


def _num_classes(probe: Mapping[str, tuple[int, ...]]) -> int:
    if not probe:
        return 0
    classes = probe.get("probe_dense/kernel", (0,))[-1]
    if classes < 2:
        raise RequestError(
            f"The supervised head must have at least 2 classes. Received: {classes}. Use "
            "--encoder_only to convert the encoder without it."
        )
    return classes
