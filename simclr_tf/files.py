"""Small files that a reader sees whole or not at all."""

from __future__ import annotations

import tensorflow as tf


def write_text(path: str, text: str) -> None:
    """Writes a small file so that a reader sees all of it or none."""
    partial = f"{path}.partial"
    with tf.io.gfile.GFile(partial, "w") as file:
        file.write(text)
    tf.io.gfile.rename(partial, path, overwrite=True)
