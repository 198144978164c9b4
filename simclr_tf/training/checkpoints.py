"""Checkpoints: named groups of variables, complete only with their manifest, strict on restore.

A checkpoint is a folder `step_00000100/` with TensorFlow's files and, written last, a manifest. The
manifest lists every variable (group, path, shape, dtype) and the settings that fix the course of
the run. A folder without a manifest was left by an interrupted save and is ignored.

A save first copies the variables to the host's memory. A thread writes the copy while steps run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from simclr_tf.errors import RequestError
from simclr_tf.files import checkpoint_prefix, write_text
from simclr_tf.training import checkpoint_variables as contents
from simclr_tf.training.background import Background
from simclr_tf.training.failures import UNREACHABLE, cause
from simclr_tf.training.host_copy import Groups, Values, checkpoint_of, copy_to_host
from simclr_tf.training.loss_scale import loss_scale_group, rule_of
from simclr_tf.training.manifest import is_manifest
from simclr_tf.training.recipe_changes import is_harmless, recipe_changes

_FOLDER = re.compile(r"step_(\d{8})/?$")
# Errors of reading a checkpoint whose files do not match its manifest.
DAMAGED = (tf.errors.OpError, ValueError, KeyError, TypeError, AssertionError)


class Checkpoints:
    """The checkpoints of one model_dir.

    Args:
      model_dir: the run's folder.
      groups: the saved variables: group -> path -> variable, see `named_groups`.
      settings: what must be equal when the run is resumed, such as the number of steps.
      recipe: parameter -> value, from `config.in_force`. Only harmless parameters may change; the
        changes are printed.
      defaults: defaults of all parameters, from `config.defaults`; see `recipe_changes`.
      keep: how many of the newest are kept.
      is_chief: whether this process writes; the others only read.
      still_ours: called before a save touches the folder, and before it becomes valid; raises if
        the folder belongs to another run by then.
      when_length_differs: how to train longer than planned, for the error of another length.
    """

    def __init__(
        self,
        model_dir: str,
        groups: Groups,
        settings: Mapping[str, Any],
        *,
        recipe: Mapping[str, str] | None = None,
        defaults: Mapping[str, str | None] | None = None,
        keep: int = 3,
        is_chief: bool = True,
        still_ours: Callable[[], None] = lambda: None,
        when_length_differs: str = "",
    ):
        self._model_dir = model_dir
        self._folder = os.path.join(model_dir, "checkpoints")
        self._groups = groups
        self._settings = dict(settings)
        self._recipe = dict(recipe or {})
        self._defaults = dict(defaults or {})
        self._keep = keep
        self._is_chief = is_chief
        self._still_ours = still_ours
        self._when_length_differs = when_length_differs
        self._writing = Background()

    def save(self, step: int) -> None:
        """Writes the checkpoint of `step`, then removes the oldest; returns when all is done."""
        if self._is_chief:
            self.begin(step, self.copy())
            self.wait()

    def copy(self) -> Values:
        """Returns the current contents of a checkpoint, in the host's memory."""
        return copy_to_host(self._groups)

    def begin(self, step: int, values: Values) -> None:
        """Starts to write `values` as the checkpoint of `step`, and returns before it is written.

        Waits for the previous write, and raises its error if it failed, as do `check` and
        `wait`.
        """
        if self._is_chief:
            self._writing.start(lambda: self._write(step, values))

    def check(self) -> None:
        """Raises the error of the last write, if that has ended and failed."""
        self._writing.check()

    def wait(self) -> None:
        """Waits for the last write to end, and raises its error if it failed."""
        self._writing.wait()

    def _write(self, step: int, values: Values) -> None:
        self._still_ours()
        folder = _step_folder(self._folder, step)
        _discard(folder)
        tf.io.gfile.makedirs(folder)
        checkpoint_of(values, self._groups).write(os.path.join(folder, "variables"))
        files = {f: tf.io.gfile.stat(os.path.join(folder, f)).length for f in _files(folder)}
        manifest = {
            "step": step,
            "settings": self._settings,
            "recipe": self._recipe,
            "variables": contents.describe_groups(self._groups),
            "files": files,
        }
        self._still_ours()
        write_text(os.path.join(folder, "manifest.json"), json.dumps(manifest, indent=1))
        # Newer ones were written before a restart, which found them damaged.
        kept = [s for s in complete_steps(self._model_dir) if s <= step][-self._keep :]
        for old in _steps(self._folder):
            if old < kept[0]:
                _discard(_step_folder(self._folder, old))

    def restore(self) -> int | None:
        """Restores the newest complete checkpoint, and returns its step; None in a new model_dir.

        Raises:
          RequestError: there are files but no readable checkpoint, or it belongs to another
            architecture or another course of training.
          tf.errors.OpError: the file system or the variables' device cannot be reached; the
            checkpoint itself may be intact.
        """
        for step in reversed(complete_steps(self._model_dir)):
            manifest = read_manifest(self._model_dir, step)
            self._compare(manifest)
            try:
                restore_groups(self._model_dir, step, self._groups)
                if self._is_chief and contents.is_older(manifest["variables"], self._groups):
                    print(contents.OLDER, flush=True)
                return step
            except UNREACHABLE:
                raise
            except DAMAGED as error:
                logging.error(
                    "checkpoint of step %d is damaged and passed over: %s", step, cause(error)
                )
        self._refuse_foreign_files()
        return None

    def _compare(self, manifest: dict[str, Any]) -> None:
        contents.compare_variables(manifest["variables"], self._groups, self._model_dir)
        saved = manifest["settings"]
        changed = [
            f"  {name}: {saved.get(name)!r} in the checkpoint, {value!r} now"
            for name, value in self._settings.items()
            if saved.get(name) != value
        ]
        harmless = []
        recipe = manifest.get("recipe", self._recipe)
        for name, words in recipe_changes(recipe, self._recipe, self._defaults):
            (harmless if is_harmless(name) else changed).append(f"  {name}: {words}")
        if changed:
            told = "\n".join(changed)
            advice = self._when_length_differs if "total_steps" in told else ""
            raise RequestError(
                f"The run in {self._model_dir} was started with other settings, so going on would "
                f"give neither run:\n{told}\nUse the same settings, or another --model_dir."
                f"{advice and ' ' + advice}"
            )
        if harmless and self._is_chief:
            print("changed, and of no effect on what is learnt:", *harmless, sep="\n", flush=True)

    def _refuse_foreign_files(self) -> None:
        """Raises RequestError if the folder holds anything but an interrupted first save."""
        if not tf.io.gfile.isdir(self._model_dir):
            return
        found = sorted(f.rstrip("/") for f in tf.io.gfile.listdir(self._model_dir))
        started = found == ["checkpoints"] and not complete_steps(self._model_dir, intact=False)
        if found and not started:
            raise RequestError(
                f"--model_dir must be new, or hold a readable checkpoint. Received: "
                f"{self._model_dir}, which has none but holds {', '.join(found[:5])}. Choose "
                "another folder; nothing was changed."
            )


def named_groups(
    models: Mapping[str, keras.Model], optimizer: keras.optimizers.Optimizer | None = None
) -> Groups:
    """Returns the variables of models, and of a built optimizer, under stable names.

    Keras numbers optimizers by how many were built before; that part of a path is left out.
    """
    groups = {name: {v.path: v for v in model.variables} for name, model in models.items()}
    if optimizer is not None:
        variables = rule_of(optimizer).variables
        groups["optimizer"] = {v.path.partition("/")[2]: v for v in variables}
        if scaling := loss_scale_group(optimizer):
            groups["loss_scale"] = scaling
    return groups


def complete_steps(model_dir: str, *, intact: bool = True) -> list[int]:
    """Returns the steps of the complete checkpoints in `model_dir`, oldest first.

    Args:
      model_dir: the run's folder.
      intact: only those whose files exist with the length that the manifest says.
    """
    folder = os.path.join(model_dir, "checkpoints")
    return [s for s in _steps(folder) if _is_complete(_step_folder(folder, s), intact)]


def is_intact(model_dir: str, step: int) -> bool:
    """Returns whether the files of a checkpoint exist with the length that its manifest says."""
    return _is_intact(_step_folder(os.path.join(model_dir, "checkpoints"), step))


def read_manifest(model_dir: str, step: int) -> dict[str, Any]:
    """Returns the manifest of a complete checkpoint."""
    path = os.path.join(_step_folder(os.path.join(model_dir, "checkpoints"), step), "manifest.json")
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def started_settings(model_dir: str) -> dict[str, Any] | None:
    """Returns the settings of the run that was started in `model_dir`; None if there is none."""
    steps = complete_steps(model_dir)
    return read_manifest(model_dir, steps[-1])["settings"] if steps else None


def restore_groups(model_dir: str, step: int, groups: Groups) -> None:
    """Restores exactly `groups`, whatever else the checkpoint holds.

    In one that is older than the online probe's rule, the probe keeps its values.

    Raises:
      RequestError: a group differs from the checkpoint's in names or shapes.
    """
    saved = read_manifest(model_dir, step)["variables"]
    contents.compare_variables(saved, groups, model_dir)
    folder = _step_folder(os.path.join(model_dir, "checkpoints"), step)
    restored = _trackable(contents.restorable(saved, groups))
    status = restored.read(checkpoint_prefix(os.path.join(folder, "variables")))
    status.assert_existing_objects_matched()
    status.expect_partial()  # other groups keep their values


def _steps(folder: str) -> list[int]:
    """Returns the steps in the folder `checkpoints`, complete or not, oldest first."""
    if not tf.io.gfile.isdir(folder):
        return []
    return sorted(int(m[1]) for m in map(_FOLDER.match, tf.io.gfile.listdir(folder)) if m)


def _discard(folder: str) -> None:
    """Deletes a checkpoint, its manifest first: a kill meanwhile leaves an incomplete one."""
    manifest = os.path.join(folder, "manifest.json")
    if tf.io.gfile.exists(manifest):
        tf.io.gfile.remove(manifest)
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


def _is_complete(folder: str, intact: bool) -> bool:
    if not tf.io.gfile.exists(os.path.join(folder, "manifest.json")):
        return False
    if not intact or _is_intact(folder):
        return True
    logging.error("checkpoint %s is damaged and passed over", folder)
    return False


def _is_intact(folder: str) -> bool:
    try:
        with tf.io.gfile.GFile(os.path.join(folder, "manifest.json")) as file:
            content = json.load(file)
        files = content["files"] if is_manifest(content) else None
        sizes = {f: tf.io.gfile.stat(os.path.join(folder, f)).length for f in files}
    except (ValueError, TypeError, RecursionError, tf.errors.OpError):
        return False
    return sizes == files


def _trackable(groups: Groups) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(
        **{name: {p: v.value for p, v in group.items()} for name, group in groups.items()}
    )


def _files(folder: str) -> list[str]:
    return sorted(f for f in tf.io.gfile.listdir(folder) if f.startswith("variables"))


def _step_folder(folder: str, step: int) -> str:
    return os.path.join(folder, f"step_{step:08d}")
