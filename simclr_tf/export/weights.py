"""Finds pretrained weights: a run, a SavedModel, a file in torchvision's format, or none."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

import gin
import keras
import tensorflow as tf

from simclr_tf.errors import InvalidArgument, RequestError, cause
from simclr_tf.export import torchvision_format
from simclr_tf.export.loading import Weights, read_metadata, read_weights
from simclr_tf.names import local
from simclr_tf.training.checkpoint_variables import (
    Description,
    compare_variables,
    describe_groups,
)
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
_UNTRAINED_TOO = f", or to '{UNTRAINED}' for initial weights"
_STEP_FOLDER = re.compile(r"(.+?)/checkpoints/step_(\d+)/?$")


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """Stored weights, group by group ("encoder", "projection_head", ...).

    Attributes:
      path: the run's folder, the SavedModel, or the file in torchvision's format; `untrained`
        where a network keeps its initial weights.
      step: the training step that wrote them, or None if unknown.
      groups: the available groups.
      average: whether the moving averages of the weights are meant, in their place.
      prefix: what the names of the groups have before these in the checkpoint, such as "target_".
    """

    path: str
    step: int | None
    groups: tuple[str, ...]
    average: bool = False
    prefix: str = ""

    def at(self, step: int) -> PretrainedWeights:
        """Returns the weights of another checkpoint of the same run."""
        stored, suffix = tuple(read_manifest(self.path, step)["variables"]), self._suffix
        chosen = [g for g in stored if g.startswith(self.prefix) and g.endswith(suffix)]
        groups = tuple(g.removeprefix(self.prefix).removesuffix(suffix) for g in chosen)
        if self.average and not groups:
            raise RequestError(
                "pretrained.average needs a checkpoint with moving averages of the weights. "
                f"Received: step {step} of {self.path}, which has none. Leave it out, or pretrain "
                "with pretrain.average_decay."
            )
        if self.prefix and not groups:
            raise RequestError(
                "pretrained.prefix must begin the names of some networks of the checkpoint. "
                f"Received: {self.prefix!r} for step {step} of {self.path}, which has "
                f"{', '.join(stored)}. Leave it out, or set it to 'target_' for BYOL."
            )
        return dataclasses.replace(self, step=step, groups=groups)

    def describe(self) -> Description:
        """Returns shape and dtype of every variable: group -> path -> [shape, dtype]."""
        arrays = _arrays(self.path)
        if arrays is None:
            return read_manifest(self.path, self.step)["variables"]
        return describe_groups(arrays)

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
        arrays = _arrays(self.path)
        if arrays is None:
            self._restore_checkpoint(groups)
            return
        compare_variables(describe_groups(arrays), groups, self.path)
        for name, variables in groups.items():
            for path, variable in variables.items():
                variable.assign(arrays[name][path])

    def _restore_checkpoint(self, groups: Groups) -> None:
        stored = {
            self.prefix + name + self._suffix: variables for name, variables in groups.items()
        }
        try:
            restore_groups(self.path, self.step, stored)
        except UNREACHABLE:
            raise
        except DAMAGED as error:
            raise InvalidArgument(
                f"The checkpoint of step {self.step} in {self.path} must be intact. Received: "
                f"{cause(error)}. Choose another one by pretrained.step, or by its "
                "folder in checkpoints/."
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
        chosen = {"average": self.average, "prefix": self.prefix}
        return {"path": self.path, "step": self.step, **{k: v for k, v in chosen.items() if v}}

    @property
    def _suffix(self) -> str:
        return SUFFIX if self.average else ""


@gin.configurable(denylist=["model_dir", "followed"])
def pretrained(
    path: str = "",
    step: int | None = None,
    average: bool = False,
    prefix: str = "",
    *,
    model_dir: str,
    followed: bool = False,
) -> PretrainedWeights:
    """Finds pretrained weights.

    Args:
      path: a run's folder, one of its checkpoints (`.../checkpoints/step_00000100`), a SavedModel
        of this project, a ResNet in torchvision's format (`.safetensors`), or 'untrained' for the
        networks' initial weights. By default the job's own model_dir.
      step: the step of the run's checkpoint; by default the newest.
      average: whether to take the moving averages of the weights instead of the last ones.
      prefix: the beginning of the names of the networks to take, where a method saves a second
        encoder beside the trained one: 'target_' for BYOL's target network, 'key_' for MoCo's,
        'teacher_' for DINO's.
      model_dir: the command line's.
      followed: whether the run's checkpoints may still be to come, see `at`.

    Raises:
      RequestError: there are no such weights.
    """
    path = local(path or model_dir).rstrip("/")
    if followed:
        return dataclasses.replace(_followed(path, step), average=average, prefix=prefix)
    if path == UNTRAINED:
        return PretrainedWeights(UNTRAINED, None, ())
    chosen = {"step": step, "average": average or None, "prefix": prefix or None}
    for name, value in chosen.items():
        if value is not None and (_is_saved_model(path) or _is_torchvision(path)):
            raise RequestError(
                f"pretrained.{name} chooses among the weights of a run's checkpoints. Received: "
                f"pretrained.{name}={value} for {path}. Leave it out."
            )
    return find_weights(path, step, average, prefix)


def find_weights(
    path: str,
    step: int | None = None,
    average: bool = False,
    prefix: str = "",
    *,
    setting: str = "pretrained.path",
) -> PretrainedWeights:
    """Finds the weights of a run, a checkpoint, a SavedModel or a file in torchvision's format.

    Args:
      path: one of these.
      step: the step of the run's checkpoint; by default the newest.
      average: whether to take a checkpoint's moving averages of the weights.
      prefix: the beginning of the names of the networks to take in a checkpoint.
      setting: the recipe's parameter that holds the path.

    Raises:
      RequestError: there are no such weights.
    """
    path = local(path).rstrip("/")
    if _is_saved_model(path):
        metadata = read_metadata(path)
        return PretrainedWeights(path, metadata["step"], tuple(metadata["networks"]))
    if _is_torchvision(path):
        return PretrainedWeights(path, None, tuple(_arrays(path)))
    named = _STEP_FOLDER.match(path)
    if named:
        path, step = named[1], int(named[2])
    steps = complete_steps(path)
    if not steps or (step is not None and step not in steps):
        wanted = "a complete checkpoint" if step is None else f"a complete checkpoint {step}"
        there = f"its complete ones are {', '.join(map(str, steps))}" if steps else "it has none"
        raise RequestError(
            f"The pretrained weights must be {wanted} or a SavedModel. Received: {path}; {there}. "
            f"Pretrain first, or set {setting} to a run's folder, a SavedModel, or a .safetensors "
            f"file{_UNTRAINED_TOO if setting == 'pretrained.path' else ''}."
        )
    return PretrainedWeights(path, None, (), average, prefix).at(
        steps[-1] if step is None else step
    )


def _followed(path: str, step: int | None) -> PretrainedWeights:
    is_no_run = path == UNTRAINED or _is_saved_model(path) or _is_torchvision(path)
    if is_no_run or step is not None or _STEP_FOLDER.match(path):
        asked = path if step is None else f"{path} with pretrained.step={step}"
        raise RequestError(
            "What is followed must be a run, by its folder, which need not exist yet. Received: "
            f"{asked}. Set pretrained.path to the --model_dir of the run."
        )
    return PretrainedWeights(path, None, ())


def _is_saved_model(path: str) -> bool:
    return tf.io.gfile.exists(os.path.join(path, "saved_model.pb"))


def _is_torchvision(path: str) -> bool:
    return path.endswith(".safetensors")


def _arrays(path: str) -> Weights | None:
    """Returns the values of a SavedModel or a file, by group and path; None for a run."""
    if _is_saved_model(path):
        return read_weights(path)
    if _is_torchvision(path):
        return torchvision_format.from_torchvision(torchvision_format.load(path))
    return None
