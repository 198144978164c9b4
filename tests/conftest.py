"""What every test starts from: a quiet TensorFlow, four logical CPUs, no gin binding left over."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin
import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def clean_gin():
    """Gin's bindings are global: each test starts and ends without any."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(scope="session")
def goldens() -> pathlib.Path:
    """The folder of the reference implementation's golden numbers, if this checkout has one."""
    folder = SHARED / "goldens"
    if not folder.is_dir():
        pytest.skip("no golden numbers beside this checkout (../shared/goldens)")
    return folder


@pytest.fixture(scope="session")
def datasets() -> pathlib.Path:
    """The folder of real images, if this checkout has one."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip("the real images are not beside this checkout (../shared/datasets)")
    return folder
