"""Features of two augmented views of each image."""

from __future__ import annotations

import itertools

import numpy as np

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.evaluation.frozen_encoder import Frozen

_VIEWS = "images"
_BATCH = 64


def view_pairs(
    frozen: Frozen, source: Source, augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Computes features of two views of each image, as pretraining would make them.

    Args:
      frozen: the encoder, whose seed draws the views.
      source: the images; one that does not decode is left out.
      augmentation: makes both views.

    Returns:
      Features of the first and of the second views, float32 [N, D] each.

    Raises:
      RequestError: too many images do not decode.
    """
    batch = min(_BATCH, source.num_examples)
    pipeline = ViewsPipeline(
        source=source,
        groups=[ViewGroup(_VIEWS, [augmentation] * 2, frozen.data.image_size)],
        seed=frozen.seed,
        bad_images=BadImages(source),
    )
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=batch)
    # The first N images of an endless order are all N of them.
    needed = -(-source.num_examples // batch)
    numbers: list[np.ndarray] = []

    def views():
        for found in itertools.islice(pipeline.dataset(host).as_numpy_iterator(), needed):
            numbers.append(found["index"])
            yield found[_VIEWS]

    pairs = [np.split(part, 2) for part in frozen.encoder.of_batches(views(), frozen.layer)]
    pipeline.bad_images.check()
    # In place of an image that does not decode stands another one, which is there already.
    index = np.concatenate(numbers)[: source.num_examples]
    rows = np.sort(np.unique(index, return_index=True)[1])
    first, second = (np.concatenate(views)[rows] for views in zip(*pairs, strict=True))
    return first, second
