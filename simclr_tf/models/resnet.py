"""ResNet encoders as in the SimCLR code: post-activation, with the stride on the 3x3 convolution.

He et al., "Deep residual learning" (https://arxiv.org/abs/1512.03385), with three changes of
google-research/simclr: a projection shortcut in the first block of every group (in the first group
of ResNet-18 and -34 too), gamma of the last normalization in a branch initialized to zero, and
symmetric padding, independent of the input size, wherever a convolution strides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gin
import keras
from absl import logging

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import InvalidArgument
from simclr_tf.models.layer_norm import LayerNorm
from simclr_tf.models.packing import PACKED, PACKED_FOR_POOL, Conv2D, MaxPool, Unpack
from simclr_tf.models.remat import Remat
from simclr_tf.models.selective_kernel import ShortcutPool, mix_streams

MAX_WIDTH = 100  # of which a layer takes 90 GB
MAX_SIZE = 8192  # pixels of a side
DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
STEMS = ("auto", "cifar", "imagenet")
CIFAR_STEM_MAX_SIZE = 64


@gin.configurable
def resnet(
    depth: int = 50,
    width_multiplier: float = 1.0,
    stem: str = "auto",
    remat: Sequence[int] = (),
    sk_ratio: float = 0.0,
    normalization: str = "batch_norm",
    *,
    image_size: int,
) -> keras.Model:
    """Builds a ResNet encoder, the f(.) of SimCLR.

    Channel counts are 64, 128, 256, 512 times `width_multiplier`, rounded to a multiple of 8 and
    at least 8; a bottleneck's output has four times as many. The compute dtype is that of Keras'
    global dtype policy at the time of the call. Names of layers, and so the paths of variables, are
    fixed: `block_group2_block1_conv2/kernel`, `..._bn2/gamma`,
    `block_group2_block1_shortcut_conv/kernel`, `stem_conv/kernel`, `stem_bn/beta`.
    With layer normalization `ln` stands for `bn`, and there are no moving statistics.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        width_multiplier: Factor on every channel count; 1, 2 and 4 in the paper.
        stem: "imagenet" (7x7/2 convolution and 3x3/2 max-pool), "cifar" (3x3/1 convolution, no
            pool; paper, appendix B.9) or "auto" (cifar for images of at most 64 pixels).
        remat: Block groups, from 1 to 4, whose activations are computed again for the gradient
            instead of being kept: less memory for more time.
        sk_ratio: The hidden width of the mixing of selective kernels as a share of the filters;
            0.0625 in the SimCLRv2 paper. Above 0, selective kernels replace the 3x3 convolutions of
            bottlenecks, and the network has the stem (three 3x3 convolutions for the 7x7 one) and
            the shortcuts of ResNet-D. The layers are `..._conv2` with twice the filters,
            `..._mix_dense1`, `..._mix_bn` and `..._mix_dense2`, and `stem_conv1` to `stem_bn3`.
        normalization: "batch_norm", over the images of all replicas, or "layer_norm", of each image
            by itself (CPC v2). No other program's ResNets have layer normalization, so such
            weights are not exported to torchvision.
        image_size: Side of the images in pixels; it decides only the meaning of "auto".

    Returns:
        A functional model named "encoder" from images [N, H, W, 3] in [0, 1] to a dict of
        "initial_conv" (the stem's last convolution, before its normalization), "block_group1" to
        "block_group4", each [N, h, w, c] in the compute dtype, and "final_avg_pool" [N, D] float32.

    Raises:
        ValueError: If a depth, width, stem, block group or normalization does not exist, or for
            selective kernels without bottlenecks or batch normalization.
    """
    _check(depth, width_multiplier, remat)
    stem = _choose_stem(stem, image_size)
    kind, blocks_per_group = DEPTHS[depth]
    norm = _choose_norm(normalization, sk_ratio)
    _check_sk_ratio(sk_ratio, kind, depth)
    branch = _basic_branch if kind == "basic" else _bottleneck_branch
    if sk_ratio:
        branch = functools.partial(_selective_branch, sk_ratio=sk_ratio)

    outputs = {}
    images = keras.Input((None, None, 3), name="images")
    filters = _channels(64, width_multiplier)
    if sk_ratio and stem == "imagenet":
        x, outputs["initial_conv"] = _deep_stem(images, filters, norm)
    else:
        # Channels tell the two streams apart, so maps of streams are never packed.
        x, outputs["initial_conv"] = _stem(images, filters, stem, norm, packed=not sk_ratio)
    if stem == "imagenet":
        x = MaxPool(name="stem_pool")(x)
    for group, blocks in enumerate(blocks_per_group, start=1):
        filters = _channels(64 * 2 ** (group - 1), width_multiplier)
        build = functools.partial(
            _group,
            branch=branch,
            norm=norm,
            filters=filters,
            blocks=blocks,
            group=group,
            pools_shortcut=bool(sk_ratio),
        )
        x = _remat(x, build, f"block_group{group}_remat") if group in remat else build(x)
        outputs[f"block_group{group}"] = Unpack(name=f"block_group{group}")(x)
    outputs["final_avg_pool"] = keras.layers.GlobalAveragePooling2D(
        dtype="float32", name="final_avg_pool"
    )(x)
    return keras.Model(images, outputs, name="encoder")


class _Norm(NamedTuple):
    """The layer that normalizes, and the end of its name, before its number in a branch."""

    layer: type[keras.layers.Layer]
    suffix: str

    def __call__(self, x, name: str, number: str = "", **kwargs):
        return self.layer(name=f"{name}_{self.suffix}{number}", **kwargs)(x)

    def relu(self, x, name: str, number: str = ""):
        x = self(x, name, number)
        return keras.layers.ReLU(name=f"{name}_{self.suffix}{number}_relu")(x)


_NORMS = {
    "batch_norm": _Norm(SyncBatchNormalization, "bn"),
    "layer_norm": _Norm(LayerNorm, "ln"),
}
# kernel size, stride, packing
_STEM_CONV = {"imagenet": (7, 2, PACKED_FOR_POOL), "cifar": (3, 1, PACKED)}


def _check(depth: int, width_multiplier: float, remat: Sequence[int]) -> None:
    if depth not in DEPTHS:
        raise InvalidArgument(
            f"depth must be one of the ResNets of the paper. Received: depth={depth}. "
            f"Valid: {', '.join(map(str, DEPTHS))}."
        )
    if not 0 < width_multiplier <= MAX_WIDTH:
        raise InvalidArgument(
            f"width_multiplier must be at most {MAX_WIDTH}, and must be positive. Received: "
            f"width_multiplier={width_multiplier}."
        )
    if not set(remat) <= {1, 2, 3, 4}:
        raise InvalidArgument(f"remat must name block groups, of 1 to 4. Received: remat={remat}.")


def _choose_stem(stem: str, image_size: int) -> str:
    if not 1 <= image_size <= MAX_SIZE:
        raise InvalidArgument(
            f"image_size must be from 1 to {MAX_SIZE} pixels. Received: image_size={image_size}."
        )
    if stem not in STEMS:
        raise InvalidArgument(
            f"stem must be one of the known stems. Received: stem={stem!r}. "
            f"Valid: {', '.join(STEMS)}."
        )
    if stem == "auto":
        stem = "cifar" if image_size <= CIFAR_STEM_MAX_SIZE else "imagenet"
        logging.info("resnet: stem 'auto' is '%s' for images of %d px.", stem, image_size)
    return stem


def _choose_norm(normalization: str, sk_ratio: float) -> _Norm:
    if normalization not in _NORMS:
        raise InvalidArgument(
            f"normalization must be one of {', '.join(_NORMS)}. Received: "
            f"normalization={normalization!r}."
        )
    if sk_ratio and normalization != "batch_norm":
        raise InvalidArgument(
            "Selective kernels need normalization 'batch_norm'. Received: "
            f"normalization={normalization!r}, sk_ratio={sk_ratio}. Leave sk_ratio at 0."
        )
    return _NORMS[normalization]


def _check_sk_ratio(sk_ratio: float, kind: str, depth: int) -> None:
    if not 0 <= sk_ratio <= 1:
        raise InvalidArgument(
            f"sk_ratio must be a share, from 0 to 1. Received: sk_ratio={sk_ratio}."
        )
    if sk_ratio and kind != "bottleneck":
        raise InvalidArgument(
            "sk_ratio needs bottleneck blocks, of ResNet-50 and deeper. Received: "
            f"depth={depth}, sk_ratio={sk_ratio}. Leave sk_ratio at 0, or use a deeper network."
        )


def _stem(images, filters: int, stem: str, norm: _Norm, packed: bool):
    size, stride, packs = _STEM_CONV[stem]
    packs = packs if packed else ()
    x = _conv(images, filters, size, stride, "stem_conv", packs=packs)
    return norm.relu(x, "stem"), Unpack(packs, name="initial_conv")(x)


def _deep_stem(images, filters: int, norm: _Norm):
    x = norm.relu(_conv(images, filters // 2, 3, 2, "stem_conv1"), "stem", "1")
    x = norm.relu(_conv(x, filters // 2, 3, 1, "stem_conv2"), "stem", "2")
    x = _conv(x, filters, 3, 1, "stem_conv3")
    return norm.relu(x, "stem", "3"), Unpack((), name="initial_conv")(x)


def _group(
    x, branch: Callable, norm: _Norm, filters: int, blocks: int, group: int, pools_shortcut: bool
):
    for block in range(1, blocks + 1):
        stride = 2 if group > 1 and block == 1 else 1
        name = f"block_group{group}_block{block}"
        shortcut = x
        x = branch(x, norm, filters, stride, name)
        if block == 1:
            if pools_shortcut:
                shortcut = ShortcutPool(stride, name=f"{name}_shortcut_pool")(shortcut)
                stride = 1
            shortcut = _conv(shortcut, x.shape[-1], 1, stride, f"{name}_shortcut_conv")
            shortcut = norm(shortcut, f"{name}_shortcut")
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return x


def _remat(x, build: Callable, name: str):
    """Applies `build` to x, to be computed again for the gradient."""
    inside = keras.Input(x.shape[1:], dtype=x.dtype)
    return Remat(keras.Model(inside, build(inside), name=f"{name}_block"), name=name)(x)


def _channels(base: int, width_multiplier: float) -> int:
    return max(8, 8 * round(base * width_multiplier / 8))


def _basic_branch(x, norm: _Norm, filters: int, stride: int, name: str):
    x = norm.relu(_conv(x, filters, 3, stride, f"{name}_conv1"), name, "1")
    x = _conv(x, filters, 3, 1, f"{name}_conv2")
    return norm(x, name, "2", gamma_initializer="zeros")


def _bottleneck_branch(x, norm: _Norm, filters: int, stride: int, name: str):
    x = norm.relu(_conv(x, filters, 1, 1, f"{name}_conv1"), name, "1")
    x = norm.relu(_conv(x, filters, 3, stride, f"{name}_conv2"), name, "2")
    x = _conv(x, 4 * filters, 1, 1, f"{name}_conv3")
    return norm(x, name, "3", gamma_initializer="zeros")


def _selective_branch(x, norm: _Norm, filters: int, stride: int, name: str, sk_ratio: float):
    x = norm.relu(_conv(x, filters, 1, 1, f"{name}_conv1"), name, "1")
    x = norm.relu(_conv(x, 2 * filters, 3, stride, f"{name}_conv2"), name, "2")
    x = mix_streams(x, sk_ratio, name)
    x = _conv(x, 4 * filters, 1, 1, f"{name}_conv3")
    return norm(x, name, "3", gamma_initializer="zeros")


def _conv(x, filters: int, kernel_size: int, stride: int, name: str, **kwargs):
    initializer = keras.initializers.VarianceScaling()
    return Conv2D(
        filters, kernel_size, stride, kernel_initializer=initializer, name=name, **kwargs
    )(x)
