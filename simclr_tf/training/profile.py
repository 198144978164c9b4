"""A profile of some steps, which TensorBoard's profile plug-in opens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.training.failures import explain_write_errors


def check_profile_steps(
    steps: tuple[int, int] | None, total_steps: int, name: str = "profile_steps"
) -> None:
    """Raises RequestError unless the steps, bound as `name`, are part of the run, or None."""
    if steps is None:
        return
    whole = isinstance(steps, (tuple, list)) and len(steps) == 2 and all(map(_is_whole, steps))
    if not whole or not 0 <= steps[0] < steps[1] <= total_steps:
        raise RequestError(
            f"{name} must be None or two whole numbers (start, stop) with 0 <= start < stop <= "
            f"{total_steps}, the number of steps. Received: {steps!r}."
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Profile:
    """While open, profiles the steps from `start` to before `stop`.

    Each of these steps is a call of its own, so that the profile tells them apart. The profile
    covers this host and its devices.

    Args:
      model_dir: the run's folder; the profile goes below its `tensorboard`.
      steps: (start, stop), or None for no profile.
      is_chief: whether this process profiles; the others split their calls in the same way.
      profiler: has `start(folder)`, `stop` and `Trace`, as that of TensorFlow.
    """

    def __init__(
        self,
        model_dir: str,
        steps: tuple[int, int] | None,
        *,
        is_chief: bool,
        profiler: Any = tf.profiler.experimental,
    ):
        self._model_dir = model_dir
        self._start, self._stop = steps or (0, 0)
        self._is_chief = is_chief
        self._profiler = profiler
        self._running = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None or not self._running:
            self._end()
        else:  # an error here would hide the one that ended the run
            with contextlib.suppress(RequestError):
                self._end()

    def most(self, step: int, steps: int) -> int:
        """Returns how many of the `steps` after `step` one call may take."""
        if step < self._start:
            return min(steps, self._start - step)
        return 1 if step < self._stop else steps

    @contextlib.contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Surrounds the call that begins with `step`."""
        if not self._is_chief or not self._start <= step < self._stop:
            yield
            return
        if not self._running:
            with explain_write_errors(self._model_dir):
                self._profiler.start(os.path.join(self._model_dir, "tensorboard"))
            self._running = True
        with self._profiler.Trace("train", step_num=step, _r=1):
            yield
        if step + 1 == self._stop:
            self._end()

    def _end(self) -> None:
        if self._running:
            self._running = False
            with explain_write_errors(self._model_dir):
                self._profiler.stop()
