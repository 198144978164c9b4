"""If this breaks, a fault costs a run on PJRT devices what it had saved."""

import signal

import pytest

pytest.importorskip("jax", reason="needs the extra [pjrt]")
pytestmark = pytest.mark.slow
TOTAL = 31
FOUR = ("strategy.cpu_replicas = 4", "pretrain.augment_on = 'host'")


@pytest.fixture(scope="module")
def on_devices(tiny, tmp_path_factory) -> dict:
    """What runs on PJRT devices are started with; they share one folder of compiled programs."""
    cache = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    return {"runtime": "pjrt", "recipe": tiny.small, "env": cache}


@pytest.fixture(scope="module")
def expected(tiny, on_devices):
    """The final weights of a run that nothing interrupted."""
    code, output = tiny.run("pjrt", *FOUR, **on_devices)
    assert code == 0 and "PJRT (4 on cpu)" in output, output
    return tiny.weights("pjrt", TOTAL)


def test_a_run_that_is_killed_and_stopped_goes_on(tiny, on_devices, expected, injected):
    for fault, ended in (("kill@write:step_00000008", -signal.SIGKILL), ("TERM@batch:20", 42)):
        code, output = tiny.run("pjrt-faults", *FOUR, fault=fault, **on_devices)
        assert code == ended, output
    tiny.go_on("pjrt-faults", expected, *FOUR, **on_devices)
    injected("PJRT devices: SIGKILL while saving, then SIGTERM", 1, "equal weights")


def test_a_full_disk_loses_nothing(tiny, small_disk, on_devices, expected, injected):
    tiny.stopped_by("disk/pjrt", 2, "must be writable and have room", *FOUR, **on_devices)
    small_disk("size=100m")
    tiny.go_on("disk/pjrt", expected, *FOUR, **on_devices)
    injected("PJRT devices: disk full", 1, "stopped (2), equal weights once there is room")
