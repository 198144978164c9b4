"""Writes small files atomically."""

from __future__ import annotations

import tensorflow as tf


def write_text(path: str, text: str) -> None:
    """Writes a small file atomically: a reader sees all of it or none."""
    partial = f"{path}.partial"
    with tf.io.gfile.GFile(partial, "w") as file:
        file.write(text)
    tf.io.gfile.rename(partial, path, overwrite=True)
