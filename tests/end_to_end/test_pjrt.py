"""If this breaks, a fault costs a run on PJRT devices what it had saved."""

import signal

import pytest

pytest.importorskip("jax", reason="needs the extra [pjrt]")
pytestmark = pytest.mark.slow
TOTAL = 31


def test_faults_of_a_run_on_pjrt_devices(tiny, small_disk, injected, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    on_devices = {"runtime": "pjrt", "recipe": tiny.small}
    replicas = ("strategy.cpu_replicas = 4", "pretrain.augment_on = 'host'")
    code, output = tiny.run("pjrt", *replicas, **on_devices)
    assert code == 0 and "PJRT (4 on cpu)" in output, output
    expected = tiny.weights("pjrt", TOTAL)
    for fault, ended in (("kill@write:step_00000008", -signal.SIGKILL), ("TERM@batch:20", 42)):
        code, output = tiny.run("pjrt-faults", *replicas, fault=fault, **on_devices)
        assert code == ended, output
    tiny.go_on("pjrt-faults", expected, *replicas, **on_devices)
    injected("PJRT devices: SIGKILL while saving, then SIGTERM", 1, "equal weights")

    words = "must be writable and have room"
    tiny.stopped_by("disk/pjrt", 2, words, *replicas, **on_devices)
    small_disk("size=100m")
    tiny.go_on("disk/pjrt", expected, *replicas, **on_devices)
    injected("PJRT devices: disk full", 1, "stopped (2), equal weights once there is room")
