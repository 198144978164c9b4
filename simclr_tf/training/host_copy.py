"""The variables of a checkpoint in the host's memory, from where they are written at leisure."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

Groups = Mapping[str, Mapping[str, keras.Variable]]
Values = dict[str, dict[str, np.ndarray]]


def copy_to_host(groups: Groups) -> Values:
    """The values at this moment: group -> path -> array; of several replicas' one, read once."""
    return {name: {path: v.numpy() for path, v in group.items()} for name, group in groups.items()}


def checkpoint_of(values: Values, groups: Groups) -> tf.train.Checkpoint:
    """A checkpoint of `values` that is written to the same files as one of the variables.

    Call it in no strategy's scope.

    Args:
      values: from `copy_to_host`.
      groups: the variables that they are of.
    """

    def variable(value: np.ndarray, like: keras.Variable) -> tf.Variable:
        return tf.Variable(value, name=like.value.name.partition(":")[0])

    with tf.device("CPU:0"):
        return tf.train.Checkpoint(
            **{
                name: {p: variable(v, groups[name][p]) for p, v in group.items()}
                for name, group in values.items()
            }
        )
