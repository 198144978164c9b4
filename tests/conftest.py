"""What every test starts from: a quiet TensorFlow, no gin binding and no memory left over."""

import dataclasses
import gc
import json
import os
import pathlib
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin
import numpy as np
import pytest

from simclr_tf import custom_gradients

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config):
    """Starts TensorFlow, but in the process that only hands out tests to others."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    from tests.support.start import start_tensorflow

    start_tensorflow()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem) -> bool | None:
    """Runs a test that is marked so in a process of its own, with which its memory goes."""
    if pyfuncitem.get_closest_marker("own_process") is None:
        return None
    from tests.support.child import in_child

    names = pyfuncitem._fixtureinfo.argnames
    in_child(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names})
    return True


def pytest_terminal_summary(terminalreporter):
    """Prints the table of the faults that were injected into runs, if any were."""
    rows = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fault" and report.when == "call"
    ]
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write_line("| fault | times | outcome |\n| --- | ---: | --- |")
        for row in sorted(rows):
            terminalreporter.write_line("| {} | {} | {} |".format(*row))


@pytest.fixture(autouse=True)
def clean_gin():
    """Gin's bindings are global: each test starts and ends without any."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(autouse=True)
def nothing_kept(request):
    """Models and graphs hold themselves in cycles, by gigabytes before Python looks for them."""
    with custom_gradients.forgotten():
        yield
    if request.node.get_closest_marker("slow"):
        gc.collect()


@pytest.fixture(scope="session")
def virtual_devices(tmp_path_factory):
    """Starts jax with eight virtual devices, and keeps its programs in a folder of the tests."""
    jax = pytest.importorskip("jax", reason="needs the extra [pjrt]")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    assert len(jax.devices()) == 8  # at once, or the first test would start as many as it needs
    return jax


@pytest.fixture(scope="session")
def build_tiny():
    """Builds a tiny SimCLR, its probe and LARS for them, in the present strategy."""
    from tests.support.tiny import build_tiny

    return build_tiny


@pytest.fixture(scope="session")
def goldens() -> pathlib.Path:
    """The folder of the reference implementation's golden numbers, if this checkout has one."""
    folder = SHARED / "goldens"
    if not folder.is_dir():
        pytest.skip("no golden numbers beside this checkout (../shared/goldens)")
    return folder


@dataclasses.dataclass(frozen=True)
class Golden:
    """One network of the reference: flags, variables, and the outputs that its code gave."""

    flags: dict[str, str]
    variables: list[dict]
    outputs: dict

    @property
    def image_size(self) -> int:
        return int(self.flags["image_size"])

    def values(self) -> Iterator[tuple[dict, np.ndarray]]:
        """Each variable's description and value, by the formula of the folder's README."""
        for rank, variable in enumerate(self.variables):
            kind, shape = variable["kind"], variable["shape"]
            s = np.sin(0.37 * np.arange(np.prod(shape)) + rank).reshape(shape)
            if kind == "kernel":
                value = 1.4 * np.sqrt(2 / np.prod(shape[:-1])) * s
            elif kind == "gamma":
                value = 1 + 0.1 * s
            elif kind == "moving_variance":
                value = 1 + 0.5 * np.abs(s)
            else:
                value = 0.05 * s
            yield variable, value.astype(np.float32)

    def images(self) -> np.ndarray:
        """8 rows, view 1 of four images and then view 2, from views on the channel axis."""
        size = self.image_size
        i = np.arange(4 * size * size * 6)
        both = (0.5 + 0.5 * np.sin(0.0131 * i + 1) * np.cos(0.0007 * i)).reshape(4, size, size, 6)
        return np.concatenate([both[..., :3], both[..., 3:]]).astype(np.float32)


@pytest.fixture(scope="session")
def golden(goldens) -> Callable[[str], Golden]:
    """Name of a golden network -> what is known of it."""

    def load(network: str) -> Golden:
        record = json.loads((goldens / f"{network}.json").read_text())
        return Golden(record["flags"], record["variables"], record["outputs"])

    return load


@pytest.fixture(scope="session")
def datasets() -> pathlib.Path:
    """The folder of real images, if this checkout has one."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip("the real images are not beside this checkout (../shared/datasets)")
    return folder
