"""Chooses, before TensorFlow is imported, which of its two TPU runtimes a process loads.

StreamExecutor, the older one, is TensorFlow's default and known to work on v2 to v4. v5e, v5p and
v6e need the PJRT plug-in in libtpu (docs/tpu.md has the sources). TensorFlow loads the plug-in at
import, if TF_PLUGGABLE_DEVICE_LIBRARY_PATH names it.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib

from simclr_tf.distribute import environment
from simclr_tf.errors import RequestError

NAMES = ("auto", "pjrt", "stream_executor")
LIBRARY = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"
C_API = "NEXT_PLUGGABLE_DEVICE_USE_C_API"
_BY_PJRT = ("v5e", "v5p", "v6e", "tpu7x")


def choose(asked: str, tpu: str, root: str = "/") -> str | None:
    """Sets the environment so that `import tensorflow` loads the requested runtime.

    A plug-in that the environment already names is kept. A TPU of unknown generation gets
    StreamExecutor, TensorFlow's default, because a failure of the other ends the process.

    Args:
      asked: `--tpu_runtime`: `auto` (by the generation of the TPU), `pjrt` or `stream_executor`.
      tpu: `--tpu`.
      root: root of the file system that has /dev and /sys.

    Returns:
      The runtime and why, in words; None if this process uses no TPU.

    Raises:
      RequestError: the runtime is unusable, or would end the process.
    """
    name = environment.tpu_name(tpu)
    given = loaded_library()
    if given and asked == "stream_executor":
        raise RequestError(
            "--tpu_runtime=stream_executor needs a process without the plug-in. Received: "
            f"{LIBRARY}={given}, which loads it. Unset {LIBRARY} and {C_API}."
        )
    if given or asked == "pjrt":
        _check_plugin(asked, name, given or _library(), root)
    generation = environment.tpu_generation(root) if name == "local" else None
    if asked == "pjrt" or (asked == "auto" and not given and generation in _BY_PJRT and _usable()):
        os.environ.setdefault(LIBRARY, _library() or "")
    if loaded_library():
        os.environ.setdefault(C_API, "true")
    return None if name == "none" else f"{loaded(name)}{_why(asked, name, given, generation)}"


def loaded_library() -> str:
    """Returns the libtpu that the environment makes TensorFlow's plug-in, or an empty string."""
    path = os.environ.get(LIBRARY, "")
    return path if "libtpu" in pathlib.Path(path).name else ""


def loaded(name: str = "local") -> str:
    """Returns in words the runtime of the TPU `name`, by the environment of this process."""
    if loaded_library():
        return "PJRT plug-in"
    return "StreamExecutor" if name == "local" else "that of the workers' servers"


def _why(asked: str, name: str, given: str, generation: str | None) -> str:
    if given:
        return f", by {LIBRARY}={given}"
    if asked != "auto":
        return ", by --tpu_runtime"
    if name != "local":
        return ""
    if generation:
        return f", for TPU {generation}"
    return ", for a TPU of unknown generation; v5e and later need --tpu_runtime=pjrt"


def _usable() -> bool:
    """Returns whether the plug-in would load; if not, `tpu_strategy` explains the missing TPU."""
    wheel = environment.installed("tensorflow-tpu")
    return bool(wheel and _library()) and os.environ.get("TPU_LOAD_LIBRARY") != "0"


def _library() -> str | None:
    """Returns the path of libtpu.so in the installed wheel, or None."""
    spec = importlib.util.find_spec("libtpu")
    if spec is None or not spec.origin:
        return None
    path = pathlib.Path(spec.origin).with_name("libtpu.so")
    return str(path) if path.is_file() else None


def _check_plugin(asked: str, name: str, library: str | None, root: str) -> None:
    """Raises RequestError for settings that would end the process, at import or initialization."""
    if library is None or environment.installed("tensorflow-tpu") is None:
        missing = "libtpu" if library is None else "tensorflow-tpu"
        raise RequestError(
            "The PJRT plug-in needs tensorflow-tpu and libtpu, or `import tensorflow` ends the "
            f"process. Received: {_source(asked)} in an environment without {missing}. To mend it, "
            f"{environment.reinstall('tpu')}"
        )
    if not os.path.isfile(library):
        raise RequestError(
            f"{LIBRARY} must be the path of libtpu.so. Received: {library}, which is no file. "
            "Unset it, and --tpu_runtime finds the installed one."
        )
    if os.environ.get("TPU_LOAD_LIBRARY") == "0":
        raise RequestError(
            "The PJRT plug-in needs libtpu, which TPU_LOAD_LIBRARY=0 forbids; both together end "
            f"the process at `import tensorflow`. Received: {_source(asked)}. Unset one of them."
        )
    if asked == "pjrt" and name != "local":
        raise RequestError(
            "--tpu_runtime=pjrt is for this host's own TPU; the runtime of other workers is that "
            "of their servers, which take the variables when they are started (docs/tpu.md). "
            f"Received: --tpu={name}. Leave --tpu_runtime out."
        )
    if name == "local" and not environment.has_tpu_devices(root):
        raise RequestError(
            "The PJRT plug-in needs a TPU, or it ends the process when it is initialized. "
            f"Received: {_source(asked)} on a machine without one (neither /dev/accel* nor "
            "/dev/vfio/*). Run this on a TPU VM, or say --tpu=none."
        )


def _source(asked: str) -> str:
    return f"{LIBRARY}={loaded_library()}" if loaded_library() else f"--tpu_runtime={asked}"
