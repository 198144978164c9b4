"""Calls of the inner loop: how many steps each takes, and what the calls of one report came to."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator

from simclr_tf.training.loop import LoopResult
from simclr_tf.training.preemption import Agreed, StopRequest
from simclr_tf.training.profile import Profile
from simclr_tf.training.stall import StallWarning

# Between two calls a request to stop is heard. A Spot VM is given 30 s, of which saving needs some;
# and what a call costs, some milliseconds, is nothing beside 10 s.
CALL_SECONDS = 10.0
# Such that hosts add up their proposals exactly, in float32.
_MOST_STEPS = 10_000


@dataclasses.dataclass
class Tally:
    """What the calls of one report came to.

    Attributes:
      steps: that they took.
      seconds: from the start to the end of each call.
      host_wait: seconds of these spent waiting for data.
      sums: of each of the steps' numbers.
      first_bad: how many steps went well before the first with a number that is not finite, if any.
      stop: whether the run is to stop.
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
        # The clock of the inner loop is the system's, which may be set meanwhile.
        self.host_wait += min(max(result.host_wait, 0.0), seconds)
        for name, mean in result.metrics.items():
            self.sums[name] += mean * steps

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each number over all steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


class Calls:
    """Takes the steps of a report by calls that last about CALL_SECONDS, from what others took.

    The first two calls take one step each, as the first is mostly tracing and compiling. A later
    one takes at most twice as many as the one before, since steps may be quick at first, while
    there are batches ahead.

    Args:
      run_steps: the inner loop: (batches, number of steps) -> what they came to.
      batches: what it takes.
      agree: from what this host wishes to what all do next.
      stop: whether this host was asked to stop.
      stall: is told when steps have ended.
      profile: which steps are profiled.
      between: called after every call; raises where the run cannot go on.
    """

    def __init__(
        self,
        run_steps: Callable[[Iterator, int], LoopResult],
        batches: Iterator,
        *,
        agree: Callable[[bool, bool, int], Agreed],
        stop: StopRequest,
        stall: StallWarning,
        profile: Profile,
        between: Callable[[], None],
    ):
        self._run_steps = run_steps
        self._batches = batches
        self._agree = agree
        self._stop = stop
        self._stall = stall
        self._profile = profile
        self._between = between
        self._length = 1
        self._compiled = False

    def take(self, step: int, goal: int, is_due: Callable[[], bool]) -> Tally:
        """Takes the steps from `step` to `goal`, or to where the run is to stop or goes wrong.

        Args:
          step: how many steps the run has behind it.
          goal: how many it should have.
          is_due: whether this host finds that it is time for a checkpoint.
        """
        tally = Tally()
        while step + tally.steps < goal and not tally.stop:
            at = step + tally.steps
            steps = self._profile.most(at, min(self._length, goal - at))
            start = time.perf_counter()
            with self._profile.around(at):
                result = self._run_steps(self._batches, steps)
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
        """How many steps this host would take next, after `steps` that took `seconds`."""
        if not self._compiled:
            self._compiled = True
            return 1
        fitting = CALL_SECONDS * steps / max(seconds, 1e-9)
        return max(1, int(min(fitting, 2 * self._length, _MOST_STEPS)))
