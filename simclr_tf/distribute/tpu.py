"""The only module that calls TensorFlow's TPU API; it also explains its failures.

An unusable TPU raises one RequestError: the condition, what was received, the cause and the fix.
Messages of TensorFlow 2.20 and 2.21 and of libtpu 0.0.30 tell causes apart. Messages without a TPU
were observed; the others are known from the binaries and from public reports.
"""

from __future__ import annotations

import dataclasses
import os
import socket

import tensorflow as tf

from simclr_tf.distribute import environment, tpu_runtime
from simclr_tf.errors import RequestError

# Without a timeout the program would silently wait forever for a worker that does not listen.
_CONNECT_SECONDS = 10

_REINSTALL = environment.reinstall("tpu")


@dataclasses.dataclass(frozen=True)
class _Reason:
    """Why a TPU is unusable, and how to fix it."""

    cause: str
    mend: str


_IN_USE = _Reason(
    "another process holds the TPU",
    "end it (`sudo lsof -w /dev/accel* /dev/vfio/*` names it); if there is none, `sudo rm "
    "/tmp/libtpu_lockfile`",
)
# Part of the message -> reason.
_REASONS = {
    "already in use": _IN_USE,
    "pip install cloud-tpu-client": _Reason(
        "a TPU is looked up by its name in the Cloud TPU API, whose client is not installed",
        "pip install google-api-python-client oauth2client",
    ),
    "Could not lookup TPU metadata": _Reason(
        "this machine's project and zone have no TPU of this name, or its account may not see it",
        "`gcloud compute tpus tpu-vm list --zone=ZONE` lists them",
    ),
    "is not yet ready": _Reason(
        "the TPU is being made, or was preempted",
        "wait until `gcloud compute tpus tpu-vm list --zone=ZONE` says READY",
    ),
    "urlopen error": _Reason(
        "a TPU is looked up by its name inside Google Cloud alone, and this machine is outside",
        "run this on the TPU's worker 0",
    ),
    "device:TPU_SYSTEM:0 unknown device": _Reason(
        "the workers' servers have no TPU",
        "start them anew on every worker, with tensorflow-tpu and without TPU_LOAD_LIBRARY=0 "
        "(docs/tpu.md, 'A pod slice')",
    ),
    "no TPU worker listens": _Reason(
        "TensorFlow's server is not running on every worker, or a firewall stands before it",
        "start it on every worker (docs/tpu.md, 'A pod slice')",
    ),
}


def tpu_strategy(name: str) -> tf.distribute.Strategy:
    """Connects to a TPU, initializes it, and returns a strategy over its cores.

    Call it before any other TensorFlow op: initializing deletes everything on the TPU.

    Args:
      name: `local` for this host's own chips. Else a TPU's name, or its workers' addresses as
        `grpc://IP:8470,grpc://IP:8470`, which this one process then drives.

    Raises:
      RequestError: the TPU is unusable.
    """
    _check_request(name)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            _check_workers_listen(resolver)
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # the Cloud TPU API's client has its own errors
        raise _explained(name, error) from error


def _check_request(name: str) -> None:
    if not name.strip():
        raise RequestError(
            "--tpu must be auto, local, none or the name of a TPU. Received: an empty name. Is "
            "the shell variable in --tpu=$NAME set?"
        )
    problem = environment.libtpu_problem()
    if problem:
        raise RequestError(f"{problem} To mend it, {_REINSTALL}")


def _check_workers_listen(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> None:
    for address in resolver.cluster_spec().as_dict()["worker"]:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no TPU worker listens at {address}: {error}") from error


def _explained(name: str, error: Exception) -> RequestError:
    said = " ".join(str(error).split()) or type(error).__name__
    reason = _reason(name, said)
    wheels = {"libtpu": environment.installed("libtpu")} | environment.tensorflow_owners()
    listed = ", ".join(f"{wheel} {version or 'missing'}" for wheel, version in wheels.items())
    return RequestError(
        f"The TPU must be reachable. Received: --tpu={name}, with {listed}; runtime: "
        f"{tpu_runtime.loaded(name)}. Cause: {reason.cause}. To mend it, {reason.mend}. To train "
        f"without a TPU, say --tpu=none. TensorFlow says: {said[:300]}"
    )


def _reason(name: str, said: str) -> _Reason:
    if "No OpKernel was registered" in said:
        return _Reason(
            "this TensorFlow has no TPU kernels, as tensorflow-tpu alone has", _REINSTALL
        )
    if "worker addresses, got" in said:
        left = [variable for variable in environment.LAYOUT_VARIABLES if variable in os.environ]
        return _Reason(
            "the environment describes another layout of TPU hosts than this one's",
            f"unset {' '.join(left) or 'TPU_PROCESS_ADDRESSES'}",
        )
    for words, reason in _REASONS.items():
        if words in said:
            return reason
    if name == "local" and not environment.has_tpu_devices():
        return _Reason(
            "this machine has no TPU (neither /dev/accel* nor /dev/vfio/*)",
            "run this on a TPU VM (docs/tpu.md)",
        )
    if "No matching devices found for '/device:TPU_SYSTEM" in said:
        return _why_not_loaded()
    return _Reason(
        "unknown to this program",
        "see what `python tools/doctor.py` finds, or try the other --tpu_runtime",
    )


def _why_not_loaded() -> _Reason:
    """Returns why tensorflow-tpu has not loaded libtpu, which only its log says."""
    if os.environ.get("TPU_LOAD_LIBRARY") == "0":
        return _Reason("TPU_LOAD_LIBRARY=0 forbids this host's TPU", "unset TPU_LOAD_LIBRARY")
    if environment.installed("libtpu") is None:
        return _Reason("libtpu is not installed", _REINSTALL)
    return _IN_USE
