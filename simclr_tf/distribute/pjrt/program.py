"""Replica functions on PJRT devices, on which their variables stay between steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import tensorflow as tf

from simclr_tf.distribute.lowering import Program
from simclr_tf.distribute.pjrt.client import Devices, value_of

# What jax says at the beginning of an error -> the class that TensorFlow would raise.
_ERRORS = {
    "RESOURCE_EXHAUSTED": tf.errors.ResourceExhaustedError,
    "ABORTED": tf.errors.AbortedError,
    "CANCELLED": tf.errors.CancelledError,
    "DEADLINE_EXCEEDED": tf.errors.DeadlineExceededError,
    "UNAVAILABLE": tf.errors.UnavailableError,
}


class DeviceVariables:
    """The current values of variables, a copy on each device.

    A variable is placed when a program first asks for it. From then on its value here counts, and
    TensorFlow's is old until `bring_home`.
    """

    def __init__(self, devices: Devices):
        self._devices = devices
        self._values: dict[object, jax.Array] = {}
        self._newer: dict[object, tf.Variable] = {}

    def values(self, variables: Sequence[tf.Variable]) -> list[jax.Array]:
        """Returns the values of some variables."""
        for variable in variables:
            if variable.ref() not in self._values:
                self._values[variable.ref()] = self._devices.copies(variable.numpy())
        return [self._values[variable.ref()] for variable in variables]

    def replace(self, variables: Sequence[tf.Variable], values: Sequence[jax.Array]) -> None:
        """Takes new values of some variables."""
        for variable, value in zip(variables, values, strict=True):
            self._values[variable.ref()] = value
            self._newer[variable.ref()] = variable

    def bring_home(self) -> None:
        """Assigns to TensorFlow's variables what has changed; waits for the steps before."""
        for key, variable in self._newer.items():
            variable.assign(value_of(self._values[key]))
        self._newer = {}


class DeviceProgram:
    """Runs a lowered replica function; the variables that it updates are donated to it.

    Args:
      program: the replica function, lowered for as many replicas as there are devices.
      devices: the devices.
      variables: the values of its variables, which other programs may share.
    """

    def __init__(self, program: Program, devices: Devices, variables: DeviceVariables):
        results = [
            (tuple(t.shape), np.dtype(t.dtype.as_numpy_dtype))
            for t in (*program.results, *program.updated)
        ]
        self._executable = devices.compile(program.stablehlo, results)
        self._program = program
        self._variables = variables

    @property
    def device_bytes(self) -> int:
        """The memory that a device needs for a step."""
        return self._executable.device_bytes()

    def __call__(self, batch: Sequence[jax.Array]) -> list[jax.Array]:
        """Starts a step, and returns the function's results, which may not be computed yet.

        Args:
          batch: the function's tensors, the part of each device on it.
        """
        program = self._program
        results = self._executable([*batch, *self._variables.values(program.variables)])
        count = len(program.results)
        self._variables.replace(program.updated, results[count:])
        return results[:count]


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raises errors of the devices as TensorFlow's of the same meaning, where it has one."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        kind = _ERRORS.get(str(error).partition(":")[0])
        if kind is None:
            raise
        raise kind(None, None, str(error)) from error
