"""The outer loop of every training job: report, save, stop and resume, for a given run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from absl import logging

from simclr_tf import config, system_memory
from simclr_tf.distribute.hosts import is_chief, make_agreement
from simclr_tf.errors import DivergedError, PreemptedError
from simclr_tf.files import write_text
from simclr_tf.training import figures
from simclr_tf.training.calls import Calls, Tally
from simclr_tf.training.checkpoints import Checkpoints
from simclr_tf.training.diagnosis import Diagnosis, structural_findings
from simclr_tf.training.failures import (
    cause,
    explain_lost_peers,
    explain_step_errors,
    explain_write_errors,
)
from simclr_tf.training.host_copy import Values, are_finite
from simclr_tf.training.plan import plan_text
from simclr_tf.training.preemption import StopRequest, peer
from simclr_tf.training.profile import Profile
from simclr_tf.training.reporting import Reporter
from simclr_tf.training.run import Run
from simclr_tf.training.run_json import record_start
from simclr_tf.training.run_lock import exclusive
from simclr_tf.training.runtime import runtime_of
from simclr_tf.training.stages import Stage
from simclr_tf.training.stall import StallWarning


def train(run: Run, export: Callable[[], str]) -> str | None:
    """Trains from the newest checkpoint to the end, and exports while the run owns its folder.

    Returns:
      The result of `export`, or None where another host exports.

    Raises:
      RequestError: the model_dir belongs to another run, is in use or cannot be written, the data
        cannot be read, or too many images are bad.
      DivergedError: a number of a step, or a weight, is not finite.
      PreemptedError: stopped on request, after saving; or another host is gone.
    """
    with _peers_checked(run):
        if not is_chief(run.strategy):
            _Trainer(run).train()
            return None
        with exclusive(run.model_dir) as still_ours:
            _Trainer(run, still_ours).train()
            still_ours()
            with explain_write_errors(run.model_dir), _peers_checked(run):
                return export()


def _peers_checked(run: Run) -> AbstractContextManager:
    return explain_lost_peers(run.model_dir, peer(run.strategy))


def _nothing() -> None:
    pass


class _Trainer:
    def __init__(self, run: Run, still_ours: Callable[[], None] = _nothing):
        self.run = run
        self.is_chief = is_chief(run.strategy)
        self.still_ours = still_ours
        self.runtime = runtime_of(run)
        self.checkpoints = Checkpoints(
            run.model_dir,
            run.groups(),
            run.settings,
            recipe=config.in_force(),
            defaults=config.defaults(),
            keep=run.cadence.keep_checkpoints,
            is_chief=self.is_chief,
            still_ours=still_ours,
            when_length_differs=run.when_length_differs,
        )
        self.diagnosis = Diagnosis(
            run.method,
            global_batch_size=run.plan.global_batch_size,
            warmup_steps=run.plan.warmup_steps,
            num_classes=run.plan.source.num_classes,
        )

    def train(self) -> None:
        run = self.run
        agree = self._checked(make_agreement(run.strategy))
        step = self._checked(self.checkpoints.restore)()
        self.origin = self._checked(run.initialize)(step is None)
        agree(False, False, 1)  # no host writes before all have read the folder
        if self.is_chief:
            step = self._start(step)
        step = step or 0
        if step < run.total_steps:
            with self._last_write_ended():
                self._train_from(step, agree)

    def _train_from(self, step: int, agree: Callable) -> None:
        reporter = self._reporter(step)
        self.saved = time.monotonic()
        with StopRequest() as stop, self._profile() as profile:
            around = {"agree": agree, "stop": stop, "profile": profile}
            for stage in self.run.stages:
                if step < stage.end:
                    step = self._train_stage(step, stage, around, reporter)

    def _train_stage(
        self, step: int, stage: Stage, around: Mapping[str, Any], reporter: Reporter
    ) -> int:
        """Takes the steps from `step` to the end of a stage, and returns the number of that."""
        with contextlib.ExitStack() as opened:
            run_steps = self._checked(opened.enter_context)(self.runtime.stage(stage, step))
            # A stage has its own, as its first step is compiled.
            stall = opened.enter_context(StallWarning())
            calls = Calls(
                self._checked(run_steps), stall=stall, between=self._check_folder, **around
            )
            return self._take_steps(step, stage.end, calls, reporter)

    def _take_steps(self, step: int, end: int, calls: Calls, reporter: Reporter) -> int:
        run, total = self.run, self.run.total_steps
        while step < end:
            tally = calls.take(step, min(self._goal(step), end), self._is_due)
            if tally.first_bad is not None:
                self._stop_diverged(step + tally.first_bad + 1)
            step += tally.steps
            self._report(reporter, step, tally)
            at_multiple = step % run.cadence.checkpoint_every_steps == 0
            if tally.stop or tally.save or at_multiple or step == total:
                self._save(step)
            run.pipeline.bad_images.check()
            if tally.stop and step < total:
                self._await_write()
                raise PreemptedError(
                    f"Stopped on request at step {step} of {total}, which is saved in "
                    f"{run.model_dir}. The same command goes on from there."
                )
        return step

    def _goal(self, step: int) -> int:
        """Returns the step of the report after `step`: a multiple of its length for any start."""
        cadence = self.run.cadence
        report = _next_multiple(step, cadence.steps_per_loop)
        checkpoint = _next_multiple(step, cadence.checkpoint_every_steps)
        return min(report, checkpoint, self.run.total_steps)

    def _reporter(self, step: int) -> Reporter:
        run = self.run
        with explain_write_errors(run.model_dir):
            reporter = Reporter(
                run.model_dir,
                start_step=step,
                total_steps=run.total_steps,
                words=run.method.words,
                is_chief=self.is_chief,
            )
            unsynchronized = structural_findings(run.trained, run.plan.num_replicas)
            for finding in (*unsynchronized, *run.method.faults()):
                reporter.warn(step, run.epoch(step), *finding)
        return reporter

    def _profile(self) -> Profile:
        return Profile(
            self.run.model_dir,
            self.run.cadence.profile_steps,
            is_chief=self.is_chief,
            profiler=self.runtime.profiler,
        )

    def _report(self, reporter: Reporter, step: int, tally: Tally) -> None:
        numbers, epoch = self._numbers(step, tally), self.run.epoch(step)
        with explain_write_errors(self.run.model_dir):
            reporter.report(step, epoch, numbers, steps=tally.steps, seconds=tally.seconds)
            for finding in self.diagnosis.look(step, epoch, numbers):
                reporter.warn(step, epoch, *finding)

    def _is_due(self) -> bool:
        """Returns whether the last save was long ago."""
        minutes = self.run.cadence.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self.saved >= 60 * minutes

    def _save(self, step: int) -> None:
        """Copies a checkpoint's contents; they are written while steps run."""
        self._await_write()  # before the copy, so that memory holds one copy at a time
        self._checked(self.runtime.bring_home)()
        values = self._checked(self.checkpoints.copy)()
        self._check_weights(step, values)
        self.checkpoints.begin(step, values)
        self.saved = time.monotonic()

    def _check_folder(self) -> None:
        """Ends the run if another run has taken its folder, or the last write has failed."""
        self.still_ours()
        with explain_write_errors(self.run.model_dir):
            self.checkpoints.check()

    def _await_write(self) -> None:
        with explain_write_errors(self.run.model_dir):
            self.checkpoints.wait()

    @contextlib.contextmanager
    def _last_write_ended(self) -> Iterator[None]:
        """However the run ends, waits until a running write is complete."""
        try:
            yield
        except BaseException:
            try:
                self.checkpoints.wait()
            except Exception as error:  # the error that ended the run takes precedence
                logging.error("the last checkpoint was not written: %s", cause(error))
            raise
        self._await_write()

    def _start(self, restored: int | None) -> int:
        """Prints the plan, and writes the files of a new run; returns the step."""
        plan = {**self.run.plan_lines(), **self.origin}
        print(plan_text(plan), flush=True)
        views = None if restored else self._checked(figures.first_views)(self.run.pipeline)
        with explain_write_errors(self.run.model_dir):
            if restored is None:
                # Save first: a non-empty model_dir then always holds a checkpoint.
                self._save(0)
                self._await_write()
            write_text(os.path.join(self.run.model_dir, "config.gin"), config.record())
            record_start(
                self.run.model_dir,
                job=self.run.job,
                plan=plan,
                total_steps=self.run.total_steps,
                step=restored or 0,
            )
            if views is not None:
                figures.views(self.run.model_dir, views)
        if restored:
            print(f"going on from step {restored}", flush=True)
        return restored or 0

    def _checked(self, function: Callable) -> Callable:
        """Wraps a function that runs steps or collectives in `explain_step_errors`."""

        def checked(*args):
            with (
                explain_step_errors(
                    self.run.model_dir,
                    peer=peer(self.run.strategy),
                    when_out_of_memory=self.run.when_out_of_memory,
                ),
                self.run.pipeline.bad_images.explained(),
            ):
                return function(*args)

        return checked

    def _numbers(self, step: int, tally: Tally) -> dict[str, float]:
        resident = system_memory.resident_mib()
        return tally.metrics | {
            **({} if self.run.chance is None else {"loss_chance": self.run.chance}),
            "learning_rate": float(self.run.schedule(step - 1)),
            "examples_per_second": tally.steps * self.run.plan.global_batch_size / tally.seconds,
            "host_wait": tally.host_wait / tally.seconds,
            "skipped_images": len(self.run.pipeline.bad_images),
            **({} if resident is None else {"host_memory_mib": resident}),
        }

    def _check_weights(self, step: int, values: Values) -> None:
        """Refuses to save weights that are not finite: they would stay the newest checkpoint."""
        if not all(are_finite(values[name]) for name in self.run.trained):
            self._stop_diverged(step)

    def _stop_diverged(self, step: int) -> None:
        rate = float(self.run.schedule(max(step - 1, 0)))
        raise DivergedError(
            f"The loss, its gradient or a weight is not finite at step {step} of "
            f"{self.run.total_steps} (learning rate {rate:.4g}). "
            f"Checkpoints from before it are in {self.run.model_dir}. Lower the base learning rate "
            "or lengthen the warm-up, and start in another --model_dir."
        )


def _next_multiple(step: int, length: int) -> int:
    return (step // length + 1) * length
