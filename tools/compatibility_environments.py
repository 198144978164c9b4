"""The environments of tools/compatibility.py: their contents, and the commands they run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTPUTS = ROOT / "tools/compatibility_outputs.py"
RECIPE = (
    "data.image_size = 32",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.125",
    "projection_head.output_dim = 16",
    "learning_rate.warmup_epochs = 0.0",
    "pretrain.precision = 'float32'",
    "pretrain.global_batch_size = 16",
    "pretrain.epochs = 0.01",  # 7 steps
    "pretrain.steps_per_loop = 3",
    "pretrain.checkpoint_every_steps = 3",
)
VERSIONS = """
import importlib.metadata, json, platform
names = ("tensorflow", "keras", "numpy", "protobuf", "tensorflow-metadata")
found = {name: importlib.metadata.version(name) for name in names}
print(json.dumps({"python": platform.python_version(), **found}))
"""


class StepError(Exception):
    """A command of one environment failed, for the reason in the message."""


@dataclasses.dataclass(frozen=True)
class Versions:
    """Versions that are installed together. No version of Keras is the newest."""

    python: str
    tensorflow: str
    keras: str = ""

    def __str__(self) -> str:
        return f"{self.python} / {self.tensorflow} / {self.keras or 'newest'}"

    @property
    def folder(self) -> str:
        return f"python{self.python}-tensorflow{self.tensorflow}-keras{self.keras or '-newest'}"

    def requirements(self) -> list[str]:
        """Returns pip's requirements, besides the project."""
        return [f"tensorflow=={self.tensorflow}", f"keras=={self.keras}" if self.keras else "keras"]


ALL = (
    Versions("3.10", "2.19.1", "3.10.0"),
    Versions("3.11", "2.19.1", "3.10.0"),
    Versions("3.11", "2.20.0", "3.10.0"),
    Versions("3.12", "2.21.0"),
    Versions("3.13", "2.21.0"),
)


@dataclasses.dataclass(frozen=True)
class Environment:
    """One environment; its folder holds all files that it writes.

    Attributes:
      versions: the versions to install.
      interpreter: the Python that makes it.
      folder: its path.
    """

    versions: Versions
    interpreter: str
    folder: pathlib.Path

    @property
    def python(self) -> str:
        return str(self.folder / "venv/bin/python")

    def run(self, log: str, *command: str, allowed: Sequence[int] = (0,)) -> None:
        """Runs a command in the project's folder, and keeps its output.

        Raises:
          StepError: its exit code is not an allowed one.
        """
        print(f"{self.versions}: {log}", flush=True)
        path = self.folder / f"{log}.log"
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with path.open("w") as file:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=False, cwd=ROOT, env=env
            )
        if done.returncode not in allowed:
            raise StepError(f"exit code {done.returncode}, see {path}")

    def install(self) -> dict[str, str]:
        """Makes the environment, and returns the versions installed in it."""
        record = self.folder / "installed.json"
        if not record.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.run("venv", self.interpreter, "-m", "venv", "--clear", str(self.folder / "venv"))
            pip = (self.python, "-m", "pip", "install")
            self.run("upgrade", *pip, "--upgrade", "pip")  # Python 3.10 brings an old pip
            self.run("install", *pip, "-e", ".[cpu,test]", *self.versions.requirements())
            self.run("versions", self.python, "-c", VERSIONS)
            (self.folder / "versions.log").rename(record)
        return json.loads(record.read_text())

    def test(self, arguments: Sequence[str]) -> dict[str, int]:
        """Runs the test suite, and counts how its tests ended."""
        report = self.folder / "tests.xml"
        if not report.exists():
            pytest = (self.python, "-m", "pytest", f"--junitxml={report}.partial", *arguments)
            self.run("tests", *pytest, allowed=(0, 1))
            pathlib.Path(f"{report}.partial").rename(report)
        return count(report)

    def train(self, log: str, model_dir: pathlib.Path) -> None:
        """Trains the tiny network, or resumes its run."""
        command = [self.python, "-m", "simclr_tf.run", "--gin_file=gin/base.gin", "--tpu=none"]
        command += [f"--gin_bindings={binding}" for binding in RECIPE]
        command += [f"--model_dir={model_dir}", f"--data_dir={self.folder / 'data'}"]
        self.run(log, *command)

    def outputs(self, log: str, model_dir: pathlib.Path) -> dict[str, dict[str, list[float]]]:
        """Computes outputs with a run: way of reading -> name -> numbers."""
        path = self.folder / "outputs.json"
        self.run(log, self.python, str(OUTPUTS), str(model_dir), str(path))
        return json.loads(path.read_text())

    def write(self) -> dict[str, list[float]]:
        """Trains the tiny network, and returns the outputs of its last checkpoint."""
        record, model_dir = self.folder / "written.json", self.folder / "run"
        if not record.exists():
            for old in (model_dir, self.folder / "read_by"):
                shutil.rmtree(old, ignore_errors=True)
            self.train("write", model_dir)
            record.write_text(json.dumps(self.outputs("write_outputs", model_dir)["checkpoint"]))
        return json.loads(record.read_text())

    def read(self, writer: Environment) -> dict[str, float]:
        """Returns the largest differences from the writer's outputs."""
        record = writer.folder / "read_by" / f"{self.folder.name}.json"
        if not record.exists():
            expected = writer.write()
            name = writer.folder.name
            found = self.outputs(f"read_{name}", writer.folder / "run")
            resumed = self.folder / "resumed"
            copy_half(writer.folder / "run", resumed)
            self.train(f"resume_{name}", resumed)
            ended = self.outputs(f"resume_{name}_outputs", resumed)["checkpoint"]
            differences = {
                "read": max(difference(way, expected) for way in found.values()),
                "resumed": difference(ended, expected),
            }
            record.parent.mkdir(exist_ok=True)
            record.write_text(json.dumps(differences))
        return json.loads(record.read_text())


def plan(interpreters: Sequence[str], folder: pathlib.Path) -> list[Environment]:
    """Returns the environments that have an interpreter.

    Raises:
      ValueError: one of them does not start, or no environment has its Python.
    """
    known = {versions.python for versions in ALL}
    found = {}
    for path in interpreters:
        try:
            done = subprocess.run([path, "--version"], capture_output=True, check=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"--python must be an interpreter. Received: {error}.") from error
        version = ".".join(done.stdout.split()[-1].split(".")[:2])
        if version not in known:
            raise ValueError(
                f"--python must be one of Python {', '.join(sorted(known))}. Received: {path}, "
                f"which is {version}."
            )
        found[version] = path
    return [
        Environment(versions, found[versions.python], folder.absolute() / versions.folder)
        for versions in ALL
        if versions.python in found
    ]


def count(report: pathlib.Path) -> dict[str, int]:
    """Counts the outcomes of a JUnit report's tests; an error around a test is a failure."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(name)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}


def copy_half(run: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies a run in its state after the first checkpoint."""
    shutil.rmtree(copy, ignore_errors=True)
    first = min((run / "checkpoints").glob("step_*"))
    shutil.copytree(first, copy / "checkpoints" / first.name)


def difference(found: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    """Returns the largest difference of any output, relative to that output's largest number.

    Infinite if a number is not finite.
    """
    if not all(math.isfinite(n) for numbers in found.values() for n in numbers):
        return math.inf
    return max(
        max(abs(a - b) for a, b in zip(numbers, expected[name], strict=True))
        / max(map(abs, expected[name]))
        for name, numbers in found.items()
    )
