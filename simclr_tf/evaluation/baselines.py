"""Baseline: a classifier that sees only colours."""

from __future__ import annotations

import numpy as np

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source import Source
from simclr_tf.evaluation.features import Features


def colour_histograms(source: Source, image_size: int, bins: int = 4) -> Features:
    """Computes joint RGB histograms of every image; each sums to 1: D = bins^3."""
    histograms, labels, indices = [], [], []
    for images, batch_labels, index in plain_images(source, image_size, 256, BadImages(source)):
        level = np.minimum((images * bins).astype(np.int64), bins - 1)
        cell = (level * [bins * bins, bins, 1]).sum(-1).reshape(len(level), -1)
        histograms.append(np.stack([np.bincount(c, minlength=bins**3) for c in cell]))
        labels.append(batch_labels)
        indices.append(index)
    counts = np.concatenate(histograms).astype(np.float32)
    return Features(
        counts / counts.sum(1, keepdims=True), np.concatenate(labels), np.concatenate(indices)
    )
