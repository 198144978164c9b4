"""A copy of a checkpoint's variables in the host's memory, written while training continues."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

Groups = Mapping[str, Mapping[str, keras.Variable]]
Values = dict[str, dict[str, tf.Tensor]]


def copy_to_host(groups: Groups) -> Values:
    """Returns the current values: group -> path -> tensor; of several replicas one is read.

    A variable that lies in the host's memory already is not copied here; TensorFlow copies it
    before the next write to it. Until then both share the bytes.
    """
    with _here():
        return {
            name: {path: tf.identity(v.value.read_value()) for path, v in group.items()}
            for name, group in groups.items()
        }


def are_finite(values: Mapping[str, tf.Tensor]) -> bool:
    """Returns whether all numbers are finite."""
    with _here():
        return all(
            bool(tf.reduce_all(tf.math.is_finite(value)))
            for value in values.values()
            if value.dtype.is_floating
        )


def checkpoint_of(values: Values, groups: Groups) -> tf.train.Checkpoint:
    """Returns a checkpoint that writes `values` to the same files as one of the variables.

    Call it outside any strategy's scope.

    Args:
      values: from `copy_to_host`.
      groups: the variables that the values were copied from.
    """

    def variable(value: tf.Tensor, like: keras.Variable) -> tf.Variable:
        return tf.Variable(value, name=like.value.name.partition(":")[0])

    with _here():
        return tf.train.Checkpoint(
            **{
                name: {p: variable(v, groups[name][p]) for p, v in group.items()}
                for name, group in values.items()
            }
        )


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """Selects this process's own CPU: a TPU slice's coordinator would use the first worker."""
    with tf.device(None), tf.device("CPU:0"):
        yield
