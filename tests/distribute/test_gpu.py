"""If this breaks, a run takes days on the CPU beside a card that nobody told is unused."""

import pytest
import tensorflow as tf

from simclr_tf.distribute import environment, gpu
from simclr_tf.distribute.strategy import create_strategy
from simclr_tf.errors import RequestError

CARD = ("dev/nvidia0", "dev/nvidiactl")
DRIVER = ("proc/driver/nvidia/version",)


@pytest.fixture(autouse=True)
def no_gpu_is_seen(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)


@pytest.mark.parametrize(
    ("files", "built", "variable", "cudnn", "cause", "mend"),
    [
        ((*CARD, *DRIVER), False, None, "9", "is built without CUDA", '".[gpu]"'),
        ((*CARD, *DRIVER), True, "7", "9", "CUDA_VISIBLE_DEVICES=7", "unset CUDA_VISIBLE_DEVICES"),
        (CARD, True, None, "9", "driver is not loaded", "nvidia-smi"),
        (DRIVER, True, None, "9", "no device file", "--gpus all"),
        ((*CARD, *DRIVER), True, None, None, "CUDA libraries .* not installed", '".[gpu]"'),
        ((*CARD, *DRIVER), True, None, "9", "unknown", "TF_CPP_MIN_LOG_LEVEL=0"),
    ],
)
def test_a_card_that_tensorflow_does_not_see_is_an_error(
    make_host, monkeypatch, files, built, variable, cudnn, cause, mend
):
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: built)
    monkeypatch.setattr(environment, "installed", lambda name: cudnn)
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    with pytest.raises(RequestError, match=f"Cause: .*{cause}.* To mend it, ") as raised:
        gpu.check_gpus_are_seen(make_host("nvidia", files=files))
    assert mend in str(raised.value).partition("To mend it, ")[2]
    assert str(raised.value).endswith("set CUDA_VISIBLE_DEVICES= (to nothing).")


@pytest.mark.parametrize("variable", ["", "-1"])
def test_the_cpu_is_had_by_asking(make_host, monkeypatch, variable):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    gpu.check_gpus_are_seen(make_host("nvidia", files=(*CARD, *DRIVER)))


def test_a_host_without_a_card_is_not_asked(make_host):
    gpu.check_gpus_are_seen(make_host("gvnic", "amd"))


def test_a_card_that_is_seen_is_well(make_host, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    gpu.check_gpus_are_seen(make_host("nvidia", files=(*CARD, *DRIVER)))


def test_no_job_gets_a_strategy_beside_a_card_that_is_not_seen(monkeypatch):
    monkeypatch.setattr(environment, "nvidia_card", lambda root: "/dev/nvidia0")
    with pytest.raises(RequestError, match="Received: /dev/nvidia0, but no GPU in tensorflow"):
        create_strategy(tpu="none")
