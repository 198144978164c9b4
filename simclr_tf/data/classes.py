"""Gives the classes of a split the numbers that they have in training."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.names import listed


def numbered_as(train: Source, source: Source) -> Source:
    """Returns a split whose classes are those of the training split, of which it may lack some.

    Args:
      train: the training split.
      source: a split of the same data, whose classes were numbered without regard to training.

    Raises:
      RequestError: the split has a class that training lacks.
    """
    names = source.class_names
    if names is None or train.class_names is None or names == train.class_names:
        return source
    number = {name: i for i, name in enumerate(train.class_names)}
    unknown = [name for name in names if name not in number]
    if unknown:
        raise RequestError(
            "The images to evaluate must be of classes that the training split has. Received: "
            f"{source.name} with {listed(unknown)}; {train.name} has {listed(train.class_names)}. "
            "Give both the same names of classes, or leave those images out."
        )
    numbers = np.array([number[name] for name in names], np.int64)
    labels = np.where(source.labels >= 0, numbers[source.labels], -1)
    return dataclasses.replace(source, class_names=train.class_names, labels=labels)
