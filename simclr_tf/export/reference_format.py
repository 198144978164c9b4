"""Maps variable names of google-research/simclr (its tf2 folder) to the names in this package.

A checkpoint has keys, paths of attributes such as
`model/resnet_model/block_groups/0/layers/1/conv_relu_dropblock_layers/3/conv2d/kernel`. A
SavedModel numbers its trainable variables in a list, and only their names identify them:
`resnet/block_group1/bottleneck_block_1/conv2d_fixed_padding_6/conv2d_6/kernel`. Numbers in keys are
places in lists that also hold layers without variables; numbers in names count all layers of a
class that the process had built. In both cases their order is that of the layers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

Place = tuple[str, str]  # group and path, as in our checkpoints

_KEY_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_HEAD_KEY = re.compile(r"(?:^|/)_projection_head/linear_layers/(\d+)/(dense|bn_relu/bn)/(\w+)$")
_PROBE_KEY = re.compile(r"(?:^|/)supervised_head/linear_layer/dense/(\w+)$")
_STEM_KEY = re.compile(r"(?:^|/)resnet_model/initial_conv_relu_max_pool/(\d+)/(conv2d|bn)/(\w+)$")
_BLOCK_KEY = re.compile(
    r"(?:^|/)resnet_model/block_groups/(\d)/layers/(\d+)/"
    r"(?:(shortcut|projection)|conv2d_bn|conv_relu_dropblock)_layers/(\d+)/(.+)/(\w+)$"
)
# The content of one place in a block's list, a single layer or those of a selective kernel: part,
# kind, order.
_LAYER_KEYS = {
    "conv2d": ("branch", "conv", 0),
    "bn": ("branch", "bn", 0),
    "conv2d_fixed_padding/conv2d": ("branch", "conv", 0),
    "batch_norm_relu/bn": ("branch", "bn", 0),
    "conv2d_0": ("mix", "conv", 0),
    "conv2d_1": ("mix", "conv", 1),
    "batch_norm_relu_1/bn": ("mix", "bn", 0),
}

_HEAD_NAME = re.compile(r"(?:^|/)projection_head/nl_(\d+)/(dense|batch_norm)\w*/(?:\w+/)?(\w+)$")
_PROBE_NAME = re.compile(r"(?:^|/)head_supervised/linear_layer/dense\w*/(\w+)$")
_LAYER_NAME = re.compile(
    r"(?:^|/)resnet/(?:block_group(\d)/(?:bottleneck|residual)_block_?(\d*)/)?(sk__conv2d\w*/)?"
    r"(conv2d_fixed_padding|conv2d|batch_norm_relu)_?(\d*)/(?:\w+/)?(\w+)$"
)


class _Layer(NamedTuple):
    """The place of a layer. Numbers of blocks and layers are known up to their order."""

    part: str  # "stem", "branch", "shortcut" or "mix"
    group: int  # of blocks, from 1; 0 for the stem
    block: int
    kind: str  # "conv" or "bn"
    order: int


def places_of_keys(keys: Iterable[str]) -> dict[str, Place]:
    """Maps the keys of one network's checkpoint to our group and path, for all variables.

    Args:
      keys: with or without `/.ATTRIBUTES/VARIABLE_VALUE`.

    Returns:
      Key to place, without the keys that belong to no layer of these networks.
    """
    places: dict[str, Place] = {}
    layers: dict[str, tuple[_Layer, str]] = {}
    for key in keys:
        path = key.removesuffix(_KEY_SUFFIX)
        if match := _HEAD_KEY.search(path):
            places[key] = _head_place(*match.groups())
        elif match := _PROBE_KEY.search(path):
            places[key] = ("probe", f"probe_dense/{match[1]}")
        elif match := _STEM_KEY.search(path):
            _, kind, _ = _LAYER_KEYS[match[2]]
            layers[key] = _Layer("stem", 0, 0, kind, int(match[1])), match[3]
        elif (match := _BLOCK_KEY.search(path)) and match[5] in _LAYER_KEYS:
            part, kind, order = _LAYER_KEYS[match[5]]
            part = "shortcut" if match[3] else part
            order += int(match[4])
            layers[key] = _Layer(part, int(match[1]) + 1, int(match[2]), kind, order), match[6]
    return places | _encoder_places(layers)


def places_of_names(names: Iterable[str]) -> dict[str, Place]:
    """Does the same for names of variables, all those of one network, with or without `:0`."""
    places: dict[str, Place] = {}
    layers: dict[str, tuple[_Layer, str]] = {}
    selective: set[_Layer] = set()
    for name in names:
        path = name.removesuffix(":0")
        if match := _HEAD_NAME.search(path):
            places[name] = _head_place(*match.groups())
        elif match := _PROBE_NAME.search(path):
            places[name] = ("probe", f"probe_dense/{match[1]}")
        elif match := _LAYER_NAME.search(path):
            group, block, inside, layer_class, order, leaf = match.groups()
            # Only the two convolutions that mix streams are not inside a layer that pads.
            part = ("mix" if layer_class == "conv2d" else "branch") if group else "stem"
            kind = "bn" if layer_class == "batch_norm_relu" else "conv"
            layer = _Layer(part, int(group or 0), int(block or 0), kind, int(order or 0))
            layers[name] = layer, leaf
            if inside:
                selective.add(layer)
    parts = _parts_by_order({layer for layer, _ in layers.values()}, selective)
    return places | _encoder_places(
        {n: (parts[layer], leaf) for n, (layer, leaf) in layers.items()}
    )


def our_shape(path: str, shape: Iterable[int]) -> tuple[int, ...]:
    """Returns a variable's shape here: matrices mix streams, which are 1x1 convolutions there."""
    shape = tuple(shape)
    return shape[2:] if "_mix_dense" in path and shape[:2] == (1, 1) else shape


def _head_place(layer: str, kind: str, leaf: str) -> Place:
    kind = "dense" if kind == "dense" else "bn"
    return ("projection_head", f"projection_{int(layer) + 1}_{kind}/{leaf}")


def _parts_by_order(layers: set[_Layer], selective: set[_Layer]) -> dict[_Layer, _Layer]:
    """Identifies shortcuts, and normalizations that mix streams, by the order of building.

    A shortcut is built before the branch beside it, in the first block of a group. The second of
    the two normalizations inside a selective kernel belongs to the mixing.
    """
    first_block = {
        group: min(x.block for x in layers if x.group == group) for _, group, *_ in layers
    }
    parts = {}
    for layer in layers:
        same = {x for x in layers if x[:4] == layer[:4]}
        part = layer.part
        if part == "branch" and layer.block == first_block[layer.group] and layer == min(same):
            part = "shortcut"
        elif layer.kind == "bn" and layer in selective and layer == max(same & selective):
            part = "mix"
        parts[layer] = layer._replace(part=part)
    return parts


def _encoder_places(layers: dict[str, tuple[_Layer, str]]) -> dict[str, Place]:
    """Returns places of the encoder's variables; their numbers become ranks."""
    blocks, orders = defaultdict(set), defaultdict(set)
    for layer, _ in layers.values():
        blocks[layer.group].add(layer.block)
        orders[layer[:4]].add(layer.order)
    places = {}
    for name, (layer, leaf) in layers.items():
        block = 1 + sorted(blocks[layer.group]).index(layer.block)
        same = sorted(orders[layer[:4]])
        number = 1 + same.index(layer.order)
        before = f"block_group{layer.group}_block{block}"
        our_layer = {
            "stem": f"stem_{layer.kind}{number if len(same) > 1 else ''}",
            "branch": f"{before}_{layer.kind}{number}",
            "shortcut": f"{before}_shortcut_{layer.kind}",
            "mix": f"{before}_mix_bn" if layer.kind == "bn" else f"{before}_mix_dense{number}",
        }[layer.part]
        places[name] = ("encoder", f"{our_layer}/{leaf}")
    return places
