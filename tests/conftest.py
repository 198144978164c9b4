"""What every test starts from: a quiet TensorFlow, four logical CPUs, no gin binding left over."""

import functools
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
def build_tiny():
    """Builds a SimCLR for 16 px and three classes, and LARS for it, in the present strategy."""
    from simclr_tf.jobs.building import build_simclr
    from simclr_tf.models.heads import projection_head
    from simclr_tf.models.resnet import resnet
    from simclr_tf.optim.factory import lars
    from simclr_tf.optim.schedules import WarmupCosine

    def build(rate: float, precision: str = "float32"):
        simclr = build_simclr(
            functools.partial(resnet, depth=18, width_multiplier=0.125),
            functools.partial(projection_head, output_dim=16),
            image_size=16,
            num_classes=3,
            precision=precision,
            seed=0,
        )
        optimizer = lars(learning_rate=WarmupCosine(rate, 0, 10), simclr=simclr)
        optimizer.build(simclr.trainable_variables)
        return simclr, optimizer

    return build


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
