"""What a classifier reaches that looks at colours alone."""

from __future__ import annotations

import numpy as np

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import plain_images
from simclr_tf.data.source import Source


def colour_histograms(
    source: Source, image_size: int, bins: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Joint RGB histograms of every image: float32 [N, bins^3], and labels int64 [N]."""
    histograms, labels = [], []
    for images, batch_labels in plain_images(source, image_size, 256, BadImages(source)):
        level = np.minimum((images * bins).astype(np.int64), bins - 1)
        cell = (level * [bins * bins, bins, 1]).sum(-1).reshape(len(level), -1)
        histograms.append(np.stack([np.bincount(c, minlength=bins**3) for c in cell]))
        labels.append(batch_labels)
    features = np.concatenate(histograms).astype(np.float32)
    return features / features.sum(1, keepdims=True), np.concatenate(labels)
