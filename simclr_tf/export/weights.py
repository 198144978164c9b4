"""Finds a job's pretrained weights: a checkpoint directory, a SavedModel, or none."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

import gin
import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument, RequestError, cause
from simclr_tf.export.loading import read_metadata, read_weights
from simclr_tf.names import local
from simclr_tf.training.checkpoint_variables import compare_variables, describe_groups
from simclr_tf.training.checkpoints import (
    DAMAGED,
    complete_steps,
    named_groups,
    read_manifest,
    restore_groups,
)
from simclr_tf.training.failures import UNREACHABLE
from simclr_tf.training.host_copy import Groups
from simclr_tf.training.weight_average import SUFFIX

UNTRAINED = "untrained"
_STEP_FOLDER = re.compile(r"(.+?)/checkpoints/step_(\d+)/?$")


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """Stored weights, group by group ("encoder", "projection_head", ...).

    Attributes:
      path: the run's folder or the SavedModel; `untrained` where a network keeps its initial
        weights.
      step: the training step that wrote them, or None if unknown.
      groups: the available groups.
      average: whether the moving averages of the weights are meant, in their place.
    """

    path: str
    step: int | None
    groups: tuple[str, ...]
    average: bool = False

    def at(self, step: int) -> PretrainedWeights:
        """Returns the weights of another checkpoint of the same run."""
        groups = tuple(read_manifest(self.path, step)["variables"])
        if self.average:
            groups = tuple(g.removesuffix(SUFFIX) for g in groups if g.endswith(SUFFIX))
        if self.average and not groups:
            raise RequestError(
                "pretrained.average needs a checkpoint with moving averages of the weights. "
                f"Received: step {step} of {self.path}, which has none. Leave it out, or pretrain "
                "with pretrain.average_decay."
            )
        return dataclasses.replace(self, step=step, groups=groups)

    def restore(self, networks: Mapping[str, keras.Model]) -> None:
        """Fills all of `networks`, or changes nothing.

        Raises:
          RequestError: a part is missing, or has another architecture.
          InvalidArgument: the checkpoint cannot be read.
        """
        if self.path == UNTRAINED:
            return
        missing = [name for name in networks if name not in self.groups]
        if missing:
            raise RequestError(
                f"The weights must have the part {missing[0]!r}. Received: {self.path}, which has "
                f"{', '.join(self.groups)}. Give the run's folder, or a SavedModel that was "
                "exported with it, or ask for the encoder's representation."
            )
        groups = named_groups(networks)
        if _is_saved_model(self.path):
            values = read_weights(self.path)
            compare_variables(describe_groups(values), groups, self.path)
            for name, variables in groups.items():
                for path, variable in variables.items():
                    variable.assign(values[name][path])
        else:
            self._restore_checkpoint(groups)

    def _restore_checkpoint(self, groups: Groups) -> None:
        suffix = SUFFIX if self.average else ""
        stored = {name + suffix: variables for name, variables in groups.items()}
        try:
            restore_groups(self.path, self.step, stored)
        except UNREACHABLE:
            raise
        except DAMAGED as error:
            raise InvalidArgument(
                f"The checkpoint of step {self.step} in {self.path} must be intact. Received: "
                f"{cause(error)}. Choose another one by pretrained.step."
            ) from error

    def refuse_to_lie_in(self, model_dir: str) -> None:
        """Raises RequestError if a training job would write its checkpoints among these."""
        if self.path == model_dir.rstrip("/"):
            raise RequestError(
                "This job trains, so it needs a --model_dir of its own, and pretrained.path to say "
                f"where the encoder lies. Received: {self.path} for both. Add "
                f"--gin_bindings='pretrained.path = \"{self.path}\"' and another --model_dir."
            )

    def record(self) -> dict[str, str | int | bool | None]:
        """Returns the part of a result that describes the weights."""
        average = {"average": True} if self.average else {}
        return {"path": self.path, "step": self.step, **average}


@gin.configurable(denylist=["model_dir", "followed"])
def pretrained(
    path: str = "",
    step: int | None = None,
    average: bool = False,
    *,
    model_dir: str,
    followed: bool = False,
) -> PretrainedWeights:
    """Finds pretrained weights.

    Args:
      path: a run's folder, one of its checkpoints (`.../checkpoints/step_00000100`), a SavedModel
        of this project, or 'untrained' for the networks' initial weights. By default the job's own
        model_dir.
      step: the step of the run's checkpoint; by default the newest.
      average: whether to take the moving averages of the weights instead of the last ones.
      model_dir: the command line's.
      followed: whether the run's checkpoints may still be to come, see `at`.

    Raises:
      RequestError: there are no such weights.
    """
    path = local(path or model_dir).rstrip("/")
    if followed:
        return dataclasses.replace(_followed(path, step), average=average)
    if path == UNTRAINED:
        return PretrainedWeights(UNTRAINED, None, ())
    if _is_saved_model(path):
        if step is not None:
            raise RequestError(
                "pretrained.step chooses among a run's checkpoints. Received: "
                f"pretrained.step={step} for the SavedModel {path}. Leave it out."
            )
        if average:
            raise RequestError(
                "pretrained.average chooses among the weights of a run's checkpoint. Received: "
                f"pretrained.average=True for the SavedModel {path}. Leave it out."
            )
        metadata = read_metadata(path)
        return PretrainedWeights(path, metadata["step"], tuple(metadata["networks"]))
    named = _STEP_FOLDER.match(path)
    if named:
        path, step = named[1], int(named[2])
    steps = complete_steps(path)
    if not steps or (step is not None and step not in steps):
        wanted = "a complete checkpoint" if step is None else f"a complete checkpoint {step}"
        there = f"its complete ones are {', '.join(map(str, steps))}" if steps else "it has none"
        raise RequestError(
            f"The pretrained weights must be {wanted} or a SavedModel. Received: {path}; {there}. "
            "Pretrain first, or set pretrained.path to a run's folder, a SavedModel, or "
            f"'{UNTRAINED}' for initial weights."
        )
    return PretrainedWeights(path, None, (), average).at(steps[-1] if step is None else step)


def _followed(path: str, step: int | None) -> PretrainedWeights:
    if path == UNTRAINED or step is not None or _STEP_FOLDER.match(path) or _is_saved_model(path):
        asked = path if step is None else f"{path} with pretrained.step={step}"
        raise RequestError(
            "What is followed must be a run, by its folder, which need not exist yet. Received: "
            f"{asked}. Set pretrained.path to the --model_dir of the run."
        )
    return PretrainedWeights(path, None, ())


def _is_saved_model(path: str) -> bool:
    return tf.io.gfile.exists(os.path.join(path, "saved_model.pb"))
