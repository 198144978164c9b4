"""If this breaks, leaks go unseen, benchmarks credit memory wrongly, or a cache overfills it."""

import contextlib
import mmap
import resource

import pytest

from simclr_tf import system_memory


@pytest.fixture
def told():
    if system_memory.resident_mib() is None:
        pytest.skip("this system does not tell what is resident")


@contextlib.contextmanager
def held():
    """Holds 64 MiB in pages of their own.

    An array may lie in, and go back to, what the allocator keeps for later.
    """
    with mmap.mmap(-1, 64 * 2**20) as pages:
        for page in range(0, len(pages), mmap.PAGESIZE):
            pages[page] = 1
        yield


def test_held_memory_is_resident(told):
    before = system_memory.resident_mib()
    with held():
        assert 60 < system_memory.resident_mib() - before < 70
    assert system_memory.resident_mib() - before < 8


def test_the_peak_is_that_of_the_system(told):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert system_memory.peak_mib() <= peak + 1


def test_the_peak_is_reset(told):
    system_memory.start_peak()
    before = system_memory.peak_mib()
    with held():
        pass
    assert system_memory.peak_mib() - before > 56
    system_memory.start_peak()
    assert system_memory.peak_mib() - system_memory.resident_mib() < 8


MEMINFO = "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    4000 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 4000 * 1024),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/job/task\n",
                "sys/fs/cgroup/job/task/memory.max": "max\n",
                "sys/fs/cgroup/job/task/memory.current": "900\n",
                "sys/fs/cgroup/job/memory.max": "5000\n",
                "sys/fs/cgroup/job/memory.current": "3000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 7\nactive_file 9\ninactive_file 500\n",
            },
            5000 - 3000 + 500,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "600\n",
                "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "800\n",
                "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "700\n",
            },
            100,
        ),
    ],
)
def test_available_memory_is_what_machine_and_control_groups_leave(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert system_memory.available_bytes(str(tmp_path)) == expected
