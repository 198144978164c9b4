"""The variables of a checkpoint in the host's memory, from where they are written at leisure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

Groups = Mapping[str, Mapping[str, keras.Variable]]
Values = dict[str, dict[str, tf.Tensor]]


def copy_to_host(groups: Groups) -> Values:
    """The values at this moment: group -> path -> tensor; of several replicas' one, read once.

    A variable that lies in the host's memory already is not copied here, but by TensorFlow when it
    is next written to: until then both share the bytes.
    """
    with _here():
        return {
            name: {path: tf.identity(v.value.read_value()) for path, v in group.items()}
            for name, group in groups.items()
        }


def are_finite(values: Mapping[str, tf.Tensor]) -> bool:
    """Whether all numbers are finite."""
    with _here():
        return all(
            bool(tf.reduce_all(tf.math.is_finite(value)))
            for value in values.values()
            if value.dtype.is_floating
        )


def checkpoint_of(values: Values, groups: Groups) -> tf.train.Checkpoint:
    """A checkpoint of `values` that is written to the same files as one of the variables.

    Call it in no strategy's scope.

    Args:
      values: from `copy_to_host`.
      groups: the variables that they are of.
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
    """This process's own CPU: the coordinator of a TPU slice works on the first worker else."""
    with tf.device(None), tf.device("CPU:0"):
        yield
