"""What feeding PJRT devices and reading their numbers adds to the steps themselves."""

from __future__ import annotations

import time

from simclr_tf.benchmark.timing import table, take_turns
from simclr_tf.training.pjrt import PjrtRuntime, take_steps
from simclr_tf.training.plan import plan_text
from simclr_tf.training.run import Run

ALONE = "the program alone"
# Seconds of a turn, about, and its fewest steps.
_SECONDS, _FEWEST = 5.0, 4


def measure(run: Run, rounds: int) -> str:
    """Times the recipe's step on a batch that stays on the devices, and as a run takes it.

    Returns:
      The plan, a table of steps per second, and the memory that a step takes of a device.
    """
    runtime = PjrtRuntime(run)
    program = runtime.compiled(run.pipeline)
    kept, feed = (runtime.feed(run.pipeline, 0) for _ in range(2))
    batch, _ = kept.take(running=None)
    names = [metric.name for metric in run.metrics]

    def alone(steps: int) -> int:
        for _ in range(steps):
            (numbers,) = program(batch)
        numbers.block_until_ready()
        return steps

    try:
        alone(2)
        start = time.perf_counter()
        alone(2)
        steps = max(_FEWEST, round(_SECONDS / ((time.perf_counter() - start) / 2)))

        def as_a_run() -> int:
            take_steps(program, feed, names, steps)
            return steps

        contestants = {ALONE: lambda: alone(steps), "fed, numbers read": as_a_run}
        timings = take_turns(contestants, rounds=rounds, baseline=ALONE)
    finally:
        kept.close()
        feed.close()
    replicas = run.plan.num_replicas
    return "\n\n".join(
        [
            plan_text(run.plan_lines()),
            table(timings, "steps"),
            f"{program.device_bytes / 2**20:,.0f} MiB of each of {replicas} devices for a step, "
            "and the next batch",
        ]
    )
