"""An embedding in the format of TensorBoard's projector: points in space, with their images."""

from __future__ import annotations

import math
import os

import numpy as np
import tensorflow as tf

from simclr_tf.evaluation.embedding import Embedding
from simclr_tf.names import shown

_SIDE = 32
_CONFIG = """embeddings {{
  tensor_name: "{name}"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def write(embedding: Embedding, name: str, folder: str) -> None:
    """Writes a folder for `tensorboard --logdir`.

    Args:
      embedding: the images, at most some thousands: the projector runs in a browser, and a sprite
        may have 8192 pixels a side.
      name: name of the tensor.
      folder: where to write.
    """
    tf.io.gfile.makedirs(folder)
    rows = ("\t".join(f"{x:.6g}" for x in vector) for vector in embedding.features.values)
    metadata = ["name\tclass"]
    metadata += [
        f"{_cell(name)}\t{_cell(kind)}"
        for name, kind in zip(embedding.names(), embedding.classes(), strict=True)
    ]
    texts = {
        "tensors.tsv": "\n".join(rows) + "\n",
        "metadata.tsv": "\n".join(metadata) + "\n",
        "projector_config.pbtxt": _CONFIG.format(name=name, side=_SIDE),
    }
    for file_name, text in texts.items():
        with tf.io.gfile.GFile(os.path.join(folder, file_name), "w") as file:
            file.write(text)
    with tf.io.gfile.GFile(os.path.join(folder, "sprite.png"), "wb") as file:
        file.write(tf.io.encode_png(_sprite(embedding.thumbnails(_SIDE))).numpy())


def _cell(text: str) -> str:
    return shown(" ".join(text.split())) or "-"


def _sprite(images: np.ndarray) -> np.ndarray:
    """Arranges [N, S, S, 3] in rows of the smallest square that holds them."""
    columns = math.ceil(math.sqrt(len(images)))
    filled = np.zeros((columns**2, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    side = images.shape[1]
    grid = filled.reshape(columns, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(columns * side, columns * side, 3)
