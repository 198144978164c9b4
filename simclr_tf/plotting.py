"""Figures without a display, written to a run's folder."""

from __future__ import annotations

import os

import tensorflow as tf

from simclr_tf.names import shown


def subplots(rows: int, columns: int, cell: float):
    """Returns a figure of square cells of `cell` inches, and its axes [rows, columns].

    matplotlib's global state (pyplot) stays unchanged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * cell, rows * cell), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plain(name: str) -> str:
    """Returns a name such that matplotlib shows it, and reads no formula or hidden label in it."""
    text = shown(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def save(figure, path: str) -> str:
    """Writes a PNG, creating the folders above it, and returns its path."""
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return path
