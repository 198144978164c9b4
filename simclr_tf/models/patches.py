"""An encoder of images by their overlapping patches, as Contrastive Predictive Coding has it."""

from __future__ import annotations

from collections.abc import Callable

import gin
import keras
import numpy as np
import tensorflow as tf

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.resnet import resnet

_NETWORK, _PATCHES = "encoder", "patches"


@gin.configurable
def patch_encoder(
    patch_size: int = 80,
    stride: int = 36,
    encoder: Callable[..., keras.Model] = resnet,
    *,
    image_size: int,
) -> keras.Model:
    """Builds an encoder that cuts an image in a grid of patches, and averages their vectors.

    The variables are those of `encoder`, under the same paths.

    Args:
        patch_size: Side of a patch in pixels.
        stride: Pixels from a patch to the next one; patches overlap if it is smaller.
        encoder: Builds the network of a patch.
        image_size: Side of the images in pixels, which patches must cover to the last pixel.

    Returns:
        A functional model named "encoder" from images [N, S, S, 3] in [0, 1] to a dict of
        "patch_grid" [N, g, g, D], the vectors of patches, row by row, and "final_avg_pool" [N, D],
        their mean, both float32.

    Raises:
        InvalidArgument: If patches do not fit into the image.
    """
    steps, left = divmod(image_size - patch_size, max(stride, 1))
    if not (stride >= 1 and 1 <= patch_size <= image_size) or left:
        raise InvalidArgument(
            "Patches must cover the image: data.image_size = patch_encoder.patch_size + k * "
            f"patch_encoder.stride. Received: patches of {patch_size} pixels with a stride of "
            f"{stride}, in images of {image_size}. Set 80, 36 and 260, or 8, 4 and 32."
        )
    images = keras.Input((image_size, image_size, 3), name="images")
    network = encoder(image_size=patch_size)
    h = network(Patches(patch_size, stride, name=_PATCHES)(images))["final_avg_pool"]
    grid = Regroup(steps + 1, dtype="float32", name="patch_grid")(h)
    pool = keras.layers.GlobalAveragePooling2D(dtype="float32", name="final_avg_pool")
    return keras.Model(images, {"patch_grid": grid, "final_avg_pool": pool(grid)}, name="encoder")


def parts_of(model: keras.Model) -> tuple[Patches, keras.Model]:
    """Returns what cuts the patches, and the network of a patch, of a `patch_encoder`.

    Raises:
        InvalidArgument: If it is another encoder.
    """
    if "patch_grid" not in model.output:
        raise InvalidArgument(
            "Contrastive Predictive Coding needs an encoder of patches. Received: one of whole "
            "images. Bind pretrain.encoder = @patch_encoder, and patch_encoder.encoder for the "
            "network of a patch."
        )
    return model.get_layer(_PATCHES), model.get_layer(_NETWORK)


def cut(images: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Cuts square images [N, S, S, C] into patches [N*g*g, size, size, C], row by row."""
    steps = (images.shape[1] - size) // stride + 1
    pixels = np.arange(steps)[:, np.newaxis] * stride + np.arange(size)
    rows = tf.gather(images, pixels, axis=1)  # [N, g, size, S, C]
    patches = tf.gather(rows, pixels, axis=3)  # [N, g, size, g, size, C]
    patches = tf.transpose(patches, [0, 1, 3, 2, 4, 5])
    return tf.reshape(patches, [-1, size, size, images.shape[-1]])


@keras.saving.register_keras_serializable(package="simclr_tf")
class Patches(keras.layers.Layer):
    """Cuts images into overlapping patches, as `cut` does.

    Args:
        size: Side of a patch in pixels.
        stride: Pixels from a patch to the next one.
    """

    def __init__(self, size: int, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.stride = stride

    def build(self, input_shape):
        self._sides = input_shape[1:3]

    def call(self, images):
        # A signature that takes any size refuses the others when it runs.
        images = tf.ensure_shape(images, [None, *self._sides, None])
        return cut(images, self.size, self.stride)

    def compute_output_shape(self, input_shape):
        return (None, self.size, self.size, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "stride": self.stride}


@keras.saving.register_keras_serializable(package="simclr_tf")
class Regroup(keras.layers.Layer):
    """Returns vectors of patches [N*g*g, D] as the grids that they lie in, [N, g, g, D].

    Args:
        side: g.
    """

    def __init__(self, side: int, **kwargs):
        super().__init__(**kwargs)
        self.side = side

    def call(self, inputs):
        return tf.reshape(inputs, [-1, self.side, self.side, inputs.shape[-1]])

    def compute_output_shape(self, input_shape):
        return (None, self.side, self.side, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "side": self.side}
