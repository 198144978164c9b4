"""The TPU compiler, run in a process of its own: its environment may hold no TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from simclr_tf.errors import RequestError
from simclr_tf.preflight.analysis import Analysis, analyse
from simclr_tf.preflight.chips import Topology

_PROGRAM = pathlib.Path(__file__).with_name("compiler.py")


class TpuCompiler:
    """Compiles programs for TPU slices that are not here.

    Args:
      python: the interpreter of an environment with jax and libtpu.

    Raises:
      RequestError: there is no such interpreter, or this one lacks libtpu.
    """

    def __init__(self, python: str):
        self._python = python
        if not shutil.which(python):
            raise RequestError(
                "preflight.compiler_python must be a Python interpreter. Received: "
                f"{python!r}, which is none."
            )
        if python == sys.executable and not importlib.util.find_spec("libtpu"):
            raise RequestError(
                "preflight needs jax and libtpu. Received: an environment without libtpu. Run "
                "pip install -e '.[preflight]', or install jax and libtpu elsewhere and bind "
                "preflight.compiler_python to that interpreter."
            )

    def __call__(self, stablehlo: str, topology: Topology) -> tuple[dict, Analysis | None]:
        """Returns the compiler's result and, if the program fits, the analysis of its code."""
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("step.mlir", "said.json", "step.hlo")]
            pathlib.Path(files[0]).write_text(stablehlo)
            done = subprocess.run(
                [self._python, str(_PROGRAM), files[0], topology.name, *files[1:]],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["no message"]
                reason = next((line for line in said if re.match(r"[\w.]*Error: ", line)), said[-1])
                raise RequestError(
                    f"The TPU compiler must take the program. Received for {topology.name}, from "
                    f"{self._python}: exit code {done.returncode}, {reason}"
                )
            said = json.loads(pathlib.Path(files[1]).read_text())
            if said["num_devices"] != topology.num_devices:
                raise RequestError(
                    f"{topology.name} must have {topology.num_devices} devices. Received from the "
                    f"compiler: {said['num_devices']}."
                )
            if "out_of_memory" in said:
                return said, None
            return said, analyse(pathlib.Path(files[2]).read_text())
