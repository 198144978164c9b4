"""A TPU slice of two workers on loopback: TensorFlow's servers, and a coordinator that drives them.

    python -m tests.support.tpu_slice PORT

is a worker's server, as start_grpc_tpu_worker starts it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TPU_LOAD_LIBRARY": "0", "PYTHONPATH": str(ROOT)}
HOSTS = ("/job:worker/replica:0/task:0", "/job:worker/replica:0/task:1")


def start(*arguments: object) -> subprocess.Popen:
    """Starts Python, with both streams in one pipe."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


@contextlib.contextmanager
def two_workers() -> Iterator[tuple[list[subprocess.Popen], list[int]]]:
    """Two servers that listen, and their ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in HOSTS]
        ports = [s.getsockname()[1] for s in sockets]
    servers = [start("-m", "tests.support.tpu_slice", port) for port in ports]
    try:
        for port in ports:
            _await_listener(port)
        yield servers, ports
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def connect(ports: Sequence[str], cores: int = 1):
    """The coordinator's strategy, over `cores` cores of each worker that do not exist."""
    import tensorflow as tf

    from tests.support.fake_tpu import Resolver

    addresses = ",".join(f"grpc://127.0.0.1:{port}" for port in ports)
    resolver = Resolver(cores, addresses, HOSTS)
    tf.config.experimental_connect_to_cluster(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _await_listener(port: int) -> None:
    deadline = time.monotonic() + 900
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"no server at port {port}"
            time.sleep(0.1)


def _serve(port: str) -> None:
    from tensorflow.core.protobuf import config_pb2, tensorflow_server_pb2
    from tensorflow.python.training import server_lib

    server = tensorflow_server_pb2.ServerDef(protocol="grpc", job_name="tpu_worker", task_index=0)
    server.cluster.job.add(name="tpu_worker").tasks[0] = f"127.0.0.1:{port}"
    server_lib.Server(server, config=config_pb2.ConfigProto()).join()


if __name__ == "__main__":
    _serve(sys.argv[1])
