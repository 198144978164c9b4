"""The plan of a run, in numbers that its owner can check before it starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import describe, describe_computation
from simclr_tf.distribute.xla import host_compiles
from simclr_tf.models.networks import Networks, count_parameters
from simclr_tf.names import listed, shown
from simclr_tf.optim.factory import excluded_roles, exclusion_summary
from simclr_tf.optim.schedules import RunSchedule
from simclr_tf.training.stages import Stage


@dataclasses.dataclass(frozen=True)
class Plan:
    """The numbers of a training run."""

    source: Source
    image_size: int
    strategy: str
    computation: str
    num_replicas: int
    global_batch_size: int
    epochs: float
    total_steps: int
    warmup_steps: int
    peak_learning_rate: float
    optimizer: str
    precision: str
    stages: Sequence[Stage]
    rate_words: str
    not_decayed: Sequence[str]
    augment_on: str = "host"
    microbatch_size: int | None = None

    @classmethod
    def of(
        cls,
        *,
        strategy: tf.distribute.Strategy,
        schedule: RunSchedule,
        optimizer: keras.optimizers.Optimizer,
        **numbers: Any,
    ) -> Plan:
        """Builds the plan of a run from these three; `numbers` are the other fields."""
        return cls(
            strategy=describe(strategy),
            computation=describe_computation(strategy),
            num_replicas=strategy.num_replicas_in_sync,
            total_steps=schedule.total_steps,
            warmup_steps=schedule.warmup_steps,
            peak_learning_rate=schedule.peak,
            optimizer=type(optimizer).__name__,
            rate_words=schedule.words,
            not_decayed=excluded_roles(optimizer),
            **numbers,
        )

    @property
    def num_microbatches(self) -> int:
        """Number of parts in which the batch is processed."""
        return self.global_batch_size // (self.microbatch_size or self.global_batch_size)

    def settings(self, precision: str, seed: int) -> dict[str, Any]:
        """Returns what must not change on resume: another value would give another run."""
        return {
            "source": self.source.identity(),
            "num_examples": self.source.num_examples,
            "image_size": self.image_size,
            "global_batch_size": self.global_batch_size,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "peak_learning_rate": self.peak_learning_rate,
            "optimizer": self.optimizer,
            "precision": precision,
            "seed": seed,
        }

    def lines(self, networks: Networks, method: Mapping[str, str]) -> dict[str, str]:
        """Returns the plan in words, by subject.

        Args:
          networks: the networks that the optimizer updates.
          method: the method's description of itself.
        """
        classes = self.source.num_classes
        batch = self.global_batch_size
        lines = {
            "data": f"{shown(self.source.name)}, {self.source.num_examples:,} images, "
            + (f"{classes} classes" if classes else "no labels")
            + (f", held in memory ({self.source.cache})" if self.source.cache != "none" else ""),
            **_data_words(self.source),
            "views": f"{_view_words(self.stages)} pixels an image, augmented on the "
            f"{self.augment_on}",
            **({} if self.source.in_memory else {"host": _host_words()}),
            "model": ", ".join(
                f"{name} {_size(model)}" for name, model in networks.items() if model.weights
            ),
            "replicas": self.strategy,
            "compute": f"{self.precision}, {self.computation}",
            "batch": f"{batch} images globally, {batch // self.num_replicas} a replica"
            + (f", in micro-batches of {self.microbatch_size}" if self.microbatch_size else ""),
            **method,
            "steps": f"{self.total_steps:,} ({self.epochs:g} epochs), "
            f"{self.warmup_steps:,} of them warm-up",
            "optimizer": f"{self.optimizer}, peak learning rate {self.peak_learning_rate:.4g}, "
            + self.rate_words,
        }
        lines |= {
            f"  {count.role}": f"{count.variables} variables, {count.parameters:,} parameters, "
            + ("decayed" if count.adapted else "not decayed")
            + (_lars_words(count.adapted) if self.optimizer == "LARS" else "")
            for count in exclusion_summary(networks, self.not_decayed)
        }
        return lines


def plan_text(lines: Mapping[str, str]) -> str:
    """Returns the plan as printed, one line per subject."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _data_words(source: Source) -> dict[str, str]:
    """Returns what a source knows of its classes, what it leaves out, and what it assumes."""
    counts = source.class_counts()
    names = zip(source.class_names, counts, strict=True) if counts is not None else ()
    words = {
        "classes": listed(f"{name} {count:,}" for name, count in names),
        "left out": source.left_out_text(),
        "note": "; ".join(source.notes),
    }
    return {name: text for name, text in words.items() if text}


def _view_words(stages: Sequence[Stage]) -> str:
    """Returns number and size of each group's views, and up to which step a stage has them."""
    sizes = [
        " and ".join(f"{v.count} of {v.size} x {v.size}" for v in stage.pipeline.groups)
        for stage in stages
    ]
    until = [f" to step {stage.end:,}" for stage in stages[:-1]]
    return ", then ".join(size + end for size, end in zip(sizes, [*until, ""], strict=True))


def _host_words() -> str:
    if host_compiles():
        return "crops and policy compiled by XLA"
    return "crops and policy not compiled, as this TensorFlow has no XLA for the CPU"


def _size(model: keras.Model) -> str:
    trained, all_of_it = count_parameters(model), sum(math.prod(v.shape) for v in model.weights)
    if not trained:
        return f"{all_of_it / 1e6:.3g} M parameters, frozen"
    return f"{trained / 1e6:.3g} M parameters"


def _lars_words(adapted: bool) -> str:
    return " and adapted by LARS" if adapted else " nor adapted by LARS"
