"""Calls of the inner loop: how many steps each takes, and their totals for one report."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable

from simclr_tf.distribute.hosts import Agreed
from simclr_tf.training.loop import LoopResult, RunSteps
from simclr_tf.training.preemption import StopRequest
from simclr_tf.training.profile import Profile
from simclr_tf.training.stall import StallWarning

# A request to stop is noticed between two calls. A Spot VM is given 30 s, part of which saving
# needs; the overhead of a call, some milliseconds, is negligible beside 10 s.
CALL_SECONDS = 10.0
# Keeps the sum of all hosts' proposals exact in float32.
_MOST_STEPS = 10_000


@dataclasses.dataclass
class Tally:
    """Totals of the calls of one report.

    Attributes:
      steps: number of steps taken.
      seconds: from the start to the end of each call, summed.
      host_wait: how many of these seconds were spent waiting for data.
      sums: sum of each of the step's numbers.
      first_bad: how many steps went well before the first with a number that is not finite, if any.
      stop: whether the run should stop.
      save: whether it is time for a checkpoint.
    """

    steps: int = 0
    seconds: float = 0.0
    host_wait: float = 0.0
    sums: Counter = dataclasses.field(default_factory=Counter)
    first_bad: int | None = None
    stop: bool = False
    save: bool = False

    def add(self, result: LoopResult, steps: int, seconds: float) -> None:
        """Adds a call."""
        if result.first_bad is not None:
            self.first_bad = self.steps + result.first_bad
        self.steps += steps
        self.seconds += seconds
        # The inner loop reads the system clock, which may be set back meanwhile.
        self.host_wait += min(max(result.host_wait, 0.0), seconds)
        for name, mean in result.metrics.items():
            self.sums[name] += mean * steps

    @property
    def metrics(self) -> dict[str, float]:
        """Returns the mean of each number over all steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


class Calls:
    """Takes the steps of a report in calls of about CALL_SECONDS, judged by earlier calls.

    The first two calls take one step each, as the first mostly traces and compiles. A later call
    takes at most twice as many steps as the one before, since steps may be quick only while
    prefetched batches last.

    Args:
      run_steps: the inner loop: number of steps -> `LoopResult`.
      agree: maps this host's wishes to what all hosts do next.
      stop: whether this host was requested to stop.
      stall: is told when steps have ended.
      profile: which steps are profiled.
      between: called after every call; raises if the run cannot continue.
    """

    def __init__(
        self,
        run_steps: RunSteps,
        *,
        agree: Callable[[bool, bool, int], Agreed],
        stop: StopRequest,
        stall: StallWarning,
        profile: Profile,
        between: Callable[[], None],
    ):
        self._run_steps = run_steps
        self._agree = agree
        self._stop = stop
        self._stall = stall
        self._profile = profile
        self._between = between
        self._length = 1
        self._compiled = False

    def take(self, step: int, goal: int, is_due: Callable[[], bool]) -> Tally:
        """Takes the steps from `step` to `goal`; ends early when the run stops or goes wrong.

        Args:
          step: number of steps already taken.
          goal: number of steps to reach.
          is_due: whether this host finds that it is time for a checkpoint.
        """
        tally = Tally()
        while step + tally.steps < goal and not tally.stop:
            at = step + tally.steps
            steps = self._profile.most(at, min(self._length, goal - at))
            start = time.perf_counter()
            with self._profile.around(at):
                result = self._run_steps(steps)
            seconds = time.perf_counter() - start
            self._stall.moved()
            tally.add(result, steps, seconds)
            if tally.first_bad is not None:
                break
            self._between()
            tally.stop, tally.save, self._length = self._agree(
                self._stop.requested, is_due(), self._next_length(steps, seconds)
            )
        return tally

    def _next_length(self, steps: int, seconds: float) -> int:
        """Returns how many steps this host proposes, after `steps` that took `seconds`."""
        if not self._compiled:
            self._compiled = True
            return 1
        fitting = CALL_SECONDS * steps / max(seconds, 1e-9)
        return max(1, int(min(fitting, 2 * self._length, _MOST_STEPS)))
