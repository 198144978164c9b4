"""If this breaks, a TPU slice that loses a worker ends with a traceback, and stays down."""

import pathlib

import pytest

from tests.support.tpu_slice import start, two_workers

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).with_name("lost_worker.py")


@pytest.mark.parametrize("what", ["steps", "reading", "restore"])
def test_a_lost_worker_ends_the_run_with_42(tmp_path, injected, what):
    said = []
    with two_workers() as (servers, ports):
        coordinator = start(SCRIPT, what, tmp_path, *ports)
        for line in coordinator.stdout:
            said.append(line)
            if "ready" in line:
                break
        servers[1].kill()
        rest, _ = coordinator.communicate(timeout=900)
    assert coordinator.returncode == 42, "".join(said) + rest
    assert "A worker of the TPU slice is gone" in rest and "Traceback" not in rest
    injected(f"a worker of a simulated TPU slice killed ({what})", 1, "the coordinator ends (42)")
