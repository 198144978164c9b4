"""Checks an installation before a run is started on it.

    python tools/doctor.py
    python tools/doctor.py --step

Prints one line per finding, `ok`, `warn` or `ERROR`, and exits with 1 if there is an ERROR.
Packages are checked by their metadata; only if these fit is TensorFlow imported, in a process of
its own, because a wrong libtpu ends the process that imports it. On a TPU host that process takes
the TPU for some seconds, so it finds none while a run holds it.

`--step` also decodes JPEGs and takes training steps of a tiny network, augmented on the host and on
the device, on each kind of device found, each in a process of its own. Its rates show that
something works, but say little about a real recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
NEEDED = ("keras", "numpy", "tensorflow-datasets", "gin-config")
PROBE_SECONDS = 180
STEP_SECONDS = 600  # a TPU's first compilation takes minutes
LIBRARY = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"


def _load_environment():
    """Loads the module from its file: the package refuses to be imported with a wrong Keras."""
    path = ROOT / "simclr_tf/distribute/environment.py"
    spec = importlib.util.spec_from_file_location("environment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = _load_environment()


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: the finding and, if something is wrong, how to fix it."""

    level: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5}  {self.text}" + (f" To mend it, {self.mend}" if self.mend else "")


def main() -> int:
    """Prints the findings; returns 1 if one is an ERROR, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", action="store_true", help="take training steps as well")
    options = parser.parse_args()
    failed = False
    for look in (packages, tensorflow_wheel, tpu_wheel, keras_choice, variables):
        failed |= _told(look())
    failed = failed or _told(tpu_runtime())
    if failed:
        print(Finding("warn", "TensorFlow was not started, because of what is wrong above."))
        return 1
    return int(_told(tensorflow_started(options.step)))


def _told(findings: Iterator[Finding]) -> bool:
    """Prints the findings as they come; returns whether one is an ERROR."""
    failed = False
    for finding in findings:
        print(finding, flush=True)
        failed |= finding.level == "ERROR"
    return failed


def packages() -> Iterator[Finding]:
    """Checks Python and the packages, by metadata."""
    yield Finding("ok", f"Python {platform.python_version()} on {platform.platform()}")
    ours = environment.installed("simclr_tf")
    if ours:
        yield Finding("ok", f"simclr_tf {ours}")
    else:
        yield Finding("warn", "simclr_tf is not installed: it runs in this folder alone.", _again())
    for name in NEEDED:
        version = environment.installed(name)
        if version:
            yield Finding("ok", f"{name} {version}")
        else:
            yield Finding("ERROR", f"{name} must be installed. Received: none.", _again())
    for name in ("libtpu", "jax"):
        yield Finding("ok", f"{name} {environment.installed(name) or 'not installed'}")


def tensorflow_wheel() -> Iterator[Finding]:
    """Checks which distribution owns the module `tensorflow`, and if its version is supported."""
    owners = environment.tensorflow_owners()
    listed = " and ".join(f"{name} {version}" for name, version in owners.items())
    if len(owners) != 1:
        yield Finding(
            "ERROR",
            "one distribution must hold the module tensorflow; several overwrite each other's "
            f"files. Received: {listed or 'none'}.",
            _again(),
        )
        return
    [(name, version)] = owners.items()
    wheel = "tensorflow-tpu" if name == "tensorflow-tpu" else "tensorflow"
    if environment.is_supported(wheel, version):
        yield Finding("ok", f"the module tensorflow is that of {listed} alone")
    else:
        low, below = environment.SUPPORTED[wheel]
        text = f"{wheel} must be at least {low} and below {below}. Received: {listed}."
        yield Finding("ERROR", text, _again())


def tpu_wheel() -> Iterator[Finding]:
    """Checks that tensorflow-tpu has a fitting libtpu, and that a TPU host has tensorflow-tpu."""
    problem = environment.libtpu_problem()
    if problem:
        yield Finding("ERROR", problem, _again())
    elif environment.installed("tensorflow-tpu") and not environment.installed("libtpu"):
        yield Finding("ERROR", "tensorflow-tpu needs libtpu. Received: none.", _again())
    if environment.has_tpu_devices() and not environment.installed("tensorflow-tpu"):
        yield Finding(
            "warn",
            "there are device files such as a TPU VM has (/dev/accel* or /dev/vfio/*), but no "
            "tensorflow-tpu: `--tpu=auto` is refused, `--tpu=none` trains on the CPU, and "
            "`--runtime=pjrt` on the TPU, if jax and its plug-in are installed.",
            environment.reinstall("tpu"),
        )


def keras_choice() -> Iterator[Finding]:
    """Checks that Keras 3 with TensorFlow will be used, by the package's own check."""
    if environment.installed("keras") is None:
        return
    sys.path.insert(0, str(ROOT))
    try:
        import simclr_tf  # noqa: F401
    except ImportError as error:
        yield Finding("ERROR", str(error))
    else:
        yield Finding("ok", "Keras uses TensorFlow")
    finally:
        sys.path.remove(str(ROOT))


def variables() -> Iterator[Finding]:
    """Checks the variables that decide which TPU is used, and how."""
    prefixes = ("TPU_", "CLOUD_TPU_", "LIBTPU_", "TF_PLUGGABLE_", "NEXT_PLUGGABLE_")
    names = [name for name in sorted(os.environ) if name.startswith(prefixes)]
    if not names:
        yield Finding("ok", "no TPU variable is set")
    for name in names:
        if name in environment.LAYOUT_VARIABLES:
            text = f"{name}={os.environ[name]} tells libtpu which chips are its own. Is it meant?"
            yield Finding("warn", text, f"unset {name}")
        elif name == "TPU_LIBRARY_PATH":
            text = f"{name}={os.environ[name]} is loaded in place of the installed libtpu."
            yield Finding("warn", text, f"unset {name}")
        else:
            yield Finding("ok", f"{name}={os.environ[name]}")
    tpu = os.environ.get("TPU_NAME", "local")
    client = all(map(importlib.util.find_spec, ("googleapiclient", "oauth2client")))
    if tpu != "local" and not tpu.startswith("grpc://") and not client:
        yield Finding(
            "ERROR",
            f"TPU_NAME={tpu} is looked up in the Cloud TPU API, whose client is not installed.",
            "pip install google-api-python-client oauth2client (or, for this host's own TPU, "
            "unset TPU_NAME)",
        )


def tpu_runtime() -> Iterator[Finding]:
    """Tells which runtime drives the TPU; sets it in the environment from here on, as in a run."""
    sys.path.insert(0, str(ROOT))
    from simclr_tf.distribute import tpu_runtime
    from simclr_tf.errors import RequestError

    try:
        words = tpu_runtime.choose("auto", "auto")
    except RequestError as error:
        yield Finding("ERROR", str(error))
    else:
        if words:
            yield Finding("ok", f"TPU runtime: {words}")


def tensorflow_started(step: bool = False) -> Iterator[Finding]:
    """Starts TensorFlow in another process, and tells its findings; `step` adds training steps."""
    result = start_probe()
    if isinstance(result, Finding):
        yield result
        return
    yield Finding("ok", f"TensorFlow {result['tensorflow']} starts, with Keras {result['keras']}")
    devices = ", ".join(f"{count} {kind}" for kind, count in result["devices"].items())
    yield Finding("ok", f"devices: {devices}")
    if result["unseen_gpu"]:
        yield Finding("ERROR", result["unseen_gpu"])
    if environment.has_tpu_devices() and "TPU" not in result["devices"]:
        yield Finding(
            "warn",
            "there are device files such as a TPU VM has, but TensorFlow sees no TPU. Another "
            "process may hold it: `sudo lsof -w /dev/accel* /dev/vfio/*` names it.",
        )
    if "gs" in result["schemes"]:
        yield Finding("ok", f"paths: {', '.join(sorted(filter(None, result['schemes'])))}")
    else:
        text = "gs:// paths cannot be read or written, which a TPU pod slice needs."
        yield Finding("warn", text, "pip install tensorflow-io-gcs-filesystem")
    yield Finding("ok", f"bfloat16 instructions of the CPU: {', '.join(result['bf16']) or 'none'}")
    text = f"precision 'auto' means {result['precision']} here, and mixed_bfloat16 on a TPU"
    yield Finding("ok", text)
    for kind in ("CPU", "GPU", "TPU") if step else ():
        if kind in result["devices"]:
            yield from step_taken(kind)


def start_probe() -> dict | Finding:
    """Returns what another process finds out about TensorFlow, or how that process failed."""
    what = "TensorFlow must start"
    return _elsewhere(["simclr_tf.distribute.probe"], PROBE_SECONDS, what, _environment())


def step_taken(kind: str) -> Iterator[Finding]:
    """Tests training steps on the devices of a kind, in another process."""
    env = _environment() if kind == "TPU" else _without_tpu(_environment())
    if kind != "GPU":
        env["CUDA_VISIBLE_DEVICES"] = ""
    arguments = ["simclr_tf.benchmark.first_step", "local" if kind == "TPU" else "none"]
    result = _elsewhere(arguments, STEP_SECONDS, f"A training step must run on the {kind}", env)
    if isinstance(result, Finding):
        yield result
        return
    for place, (level, text) in result.items():
        yield Finding(level, f"{kind}, augmented on the {place}: {text}")


def _environment() -> dict[str, str]:
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    # Without a TPU, libtpu would ask Google's metadata server about one for minutes.
    return env if environment.has_tpu_devices() else _without_tpu(env)


def _without_tpu(env: dict[str, str]) -> dict[str, str]:
    """Returns the environment of a process that loads libtpu in neither way."""
    return {n: v for n, v in env.items() if n != LIBRARY} | {"TPU_LOAD_LIBRARY": "0"}


def _elsewhere(module: list[str], seconds: int, what: str, env: dict[str, str]) -> dict | Finding:
    """Returns the JSON that a module of the package prints last, or how its process failed."""
    command = [sys.executable, "-m", *module]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=env,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Finding("ERROR", f"{what} within {seconds} seconds. It did not.", _again())
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    code = done.returncode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    text = f"{what}. Received: {how}, with the last words: {' '.join(lines[-1:])}"
    return Finding("ERROR", text[:500], _again())


def _again() -> str:
    return environment.reinstall(environment.extra_for_this_host())


if __name__ == "__main__":
    sys.exit(main())
