"""Small pictures of three classes, each a colour with noise, in folders named by their class."""

import pathlib

import numpy as np
import tensorflow as tf

CLASSES = ("blue", "green", "red")


def write_pictures(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """Writes splits `train` and `test`, of ten and of four 16 px pictures a class."""
    for split, count in (("train", 10), ("test", 4)):
        for channel, name in enumerate(reversed(CLASSES)):
            for i in range(count):
                pixels = rng.integers(0, 128, (16, 16, 3), np.uint8)
                pixels[..., channel] += 128
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tf.io.encode_png(pixels).numpy())
