"""If this breaks, a run that leaks looks steady, or a benchmark credits memory wrongly."""

import resource

import numpy as np
import pytest

from simclr_tf.training import host_memory


@pytest.fixture(autouse=True)
def told():
    if host_memory.resident_mib() is None:
        pytest.skip("this system does not tell what is resident")


def test_a_held_array_is_resident():
    before = host_memory.resident_mib()
    held = np.ones(64 * 2**17)  # 64 MiB
    assert 60 < host_memory.resident_mib() - before < 70
    del held
    assert host_memory.resident_mib() - before < 8


def test_the_peak_is_that_of_the_system():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert host_memory.peak_mib() <= peak + 1


def test_the_peak_starts_anew():
    np.ones(64 * 2**17)
    host_memory.start_peak()
    assert host_memory.peak_mib() - host_memory.resident_mib() < 8
