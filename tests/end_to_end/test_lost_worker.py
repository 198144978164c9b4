"""If this breaks, a TPU slice that loses a worker ends with a traceback, and stays down."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).with_name("lost_worker.py")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])},
    )


@pytest.fixture
def workers():
    """Two servers and their ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    servers = [start("serve", port) for port in ports]
    for port in ports:
        await_listener(port)
    yield servers, ports
    for server in servers:
        server.kill()
        server.communicate()


def await_listener(port):
    deadline = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"no server at port {port}"
            time.sleep(0.1)


@pytest.mark.parametrize("what", ["steps", "reading", "restore"])
def test_a_lost_worker_ends_the_run_with_42(workers, tmp_path, what):
    servers, ports = workers
    coordinator = start(what, tmp_path, *ports)
    said = []
    for line in coordinator.stdout:
        said.append(line)
        if "ready" in line:
            break
    servers[1].kill()
    rest, _ = coordinator.communicate(timeout=120)
    assert coordinator.returncode == 42, "".join(said) + rest
    assert "A worker of the TPU slice is gone" in rest and "Traceback" not in rest
