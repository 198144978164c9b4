"""Looks at an installation before a run is put on it.

    python tools/doctor.py

Prints one line a finding, `ok`, `warn` or `ERROR`, and exits with 1 if there is an ERROR. Packages
are looked at by their metadata; only if these fit is TensorFlow imported, in a process of its own,
because a wrong libtpu ends the process that imports it. On a TPU host that process takes the TPU
for some seconds, so it finds none while a run holds it.
"""

from __future__ import annotations

import collections
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


def _load_environment():
    """The module from its file: the package itself refuses to be imported beside a wrong Keras."""
    path = ROOT / "simclr_tf/distribute/environment.py"
    spec = importlib.util.spec_from_file_location("environment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = _load_environment()


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: what was found, and, if it is wrong, what mends it."""

    level: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5}  {self.text}" + (f" To mend it, {self.mend}" if self.mend else "")


def main() -> int:
    """Prints the findings; returns 1 if one is an ERROR, else 0."""
    if sys.argv[1:] == ["--probe"]:
        print(json.dumps(probe()))
        return 0
    failed = False
    for look in (packages, tensorflow_wheel, tpu_wheel, keras_choice, variables):
        for finding in look():
            print(finding, flush=True)
            failed |= finding.level == "ERROR"
    if failed:
        print(Finding("warn", "TensorFlow was not started, because of what is wrong above."))
    else:
        for finding in tensorflow_started():
            print(finding, flush=True)
            failed |= finding.level == "ERROR"
    return int(failed)


def packages() -> Iterator[Finding]:
    """Python and the packages, by metadata."""
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
    """Which distribution owns the module `tensorflow`, and whether its version is supported."""
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
    """Whether tensorflow-tpu has a libtpu that fits, and a TPU host has tensorflow-tpu."""
    problem = environment.libtpu_problem()
    if problem:
        yield Finding("ERROR", problem, _again())
    elif environment.installed("tensorflow-tpu") and not environment.installed("libtpu"):
        yield Finding("ERROR", "tensorflow-tpu needs libtpu. Received: none.", _again())
    if environment.has_tpu_devices() and not environment.installed("tensorflow-tpu"):
        yield Finding(
            "warn",
            "there are device files such as a TPU VM has (/dev/accel* or /dev/vfio/*), but no "
            "tensorflow-tpu: `--tpu=auto` would train on the CPU.",
            environment.reinstall("tpu"),
        )


def keras_choice() -> Iterator[Finding]:
    """Whether Keras 3 with TensorFlow is what will be used, by the package's own check."""
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
    """The variables that decide which TPU is used, and how."""
    names = [n for n in sorted(os.environ) if n.startswith(("TPU_", "CLOUD_TPU_", "LIBTPU_"))]
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


def tensorflow_started() -> Iterator[Finding]:
    """What TensorFlow itself says, in a process of its own."""
    result = start_probe()
    if isinstance(result, Finding):
        yield result
        return
    yield Finding("ok", f"TensorFlow {result['tensorflow']} starts, with Keras {result['keras']}")
    devices = ", ".join(f"{count} {kind}" for kind, count in result["devices"].items())
    yield Finding("ok", f"devices: {devices}")
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


def start_probe() -> dict | Finding:
    """What `probe` returns in another process, or how that process failed."""
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if not environment.has_tpu_devices():
        # libtpu would ask Google's metadata server about a TPU for minutes.
        env["TPU_LOAD_LIBRARY"] = "0"
    command = [sys.executable, __file__, "--probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=env, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        text = f"TensorFlow did not start within {PROBE_SECONDS} seconds."
        return Finding("ERROR", text, _again())
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    code = done.returncode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    text = f"TensorFlow must start. Received: {how}, with the last words: {' '.join(lines[-1:])}"
    return Finding("ERROR", text[:500], _again())


def probe() -> dict:
    """Runs in the other process: imports TensorFlow and says what it is and sees."""
    sys.path.insert(0, str(ROOT))
    import keras
    import tensorflow as tf

    from simclr_tf.distribute import strategy

    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "devices": collections.Counter(d.device_type for d in tf.config.list_logical_devices()),
        "schemes": tf.io.gfile.get_registered_schemes(),
        "bf16": sorted({"avx512_bf16", "amx_bf16"} & strategy._cpu_flags()),
        "precision": strategy.fast_precision(tf.distribute.get_strategy()),
    }


def _again() -> str:
    return environment.reinstall(environment.extra_for_this_host())


if __name__ == "__main__":
    sys.exit(main())
