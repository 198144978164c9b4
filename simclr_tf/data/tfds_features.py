"""Features of a data set of tensorflow_datasets: which are read, and why others are not."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from simclr_tf.errors import RequestError

_TYPES = ("uint8", "uint16")
# Channels that tensorflow_datasets decodes to pixels: gray, RGB and RGBA. Records may have gray
# with alpha too.
_DECODED_CHANNELS = (1, 3, 4)
_CHANNELS = (None, 1, 2, 3, 4)


def check_image(features: tfds.features.FeaturesDict, name: str) -> None:
    """Refuses a data set whose feature `image` is no image that can be read.

    Raises:
      RequestError: it is missing, of another type, or has other channels.
    """
    if "image" not in features:
        raise RequestError(
            f"A data set must have the feature 'image'. {name} has: {', '.join(features)}."
        )
    image = features["image"]
    is_image = isinstance(image, (tfds.features.Image, tfds.features.Tensor))
    fits = is_image and len(image.shape) == 3 and image.shape[-1] in _CHANNELS
    if not fits or np.dtype(image.np_dtype).name not in _TYPES:
        raise RequestError(
            f"The feature 'image' of a data set must be an image of type {' or '.join(_TYPES)} "
            f"with 1 to 4 channels. Received: {name} with 'image' of type {_type(image)}. Prepare "
            "a version of it with such images."
        )


def fits_in_memory(features: tfds.features.FeaturesDict, count: int, most: int) -> bool:
    """Returns whether `count` images are equal in size, and together no larger than `most` bytes.

    Raises:
      RequestError: they are not, and are no encoded images that could be read one by one.
    """
    image = features["image"]
    known = None not in image.shape and image.shape[-1] in _DECODED_CHANNELS
    if known and count * np.prod(image.shape) <= most:
        return True
    if not isinstance(image, tfds.features.Image):
        raise RequestError(
            "A large data set, or one of several sizes, must hold encoded images "
            f"(tfds.features.Image). Received: 'image' of type {_type(image)}. Prepare a version "
            "of it with such images."
        )
    return False


def names_of(label: tfds.features.FeatureConnector | None) -> list[str] | None:
    """Returns the classes of a ClassLabel; None if it, or another feature, does not know them."""
    known = isinstance(label, tfds.features.ClassLabel) and label.num_classes is not None
    return list(label.names) if known else None


def unused_label(features: tfds.features.FeaturesDict) -> str | None:
    """Returns why labels are not used that a person may expect; None if they are, or are none."""
    label = dict(features).get("label")
    if label is None:
        others = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
        named = ", ".join(f"'{key}'" for key in others)
        return f"there is no feature 'label', and {named} is not used as one" if others else None
    if reads_label(features):
        return None
    return f"the labels are not used: they must be ClassLabel or whole numbers, not {_type(label)}"


def reads_label(features: tfds.features.FeaturesDict) -> bool:
    """Returns whether the feature `label` can be a class: a ClassLabel or one whole number."""
    label = dict(features).get("label")
    if not isinstance(label, tfds.features.Tensor):
        return isinstance(label, tfds.features.ClassLabel)
    return label.shape == () and np.dtype(label.np_dtype).kind in "iub"


def _type(feature: tfds.features.FeatureConnector) -> str:
    return " ".join(repr(feature).split())
