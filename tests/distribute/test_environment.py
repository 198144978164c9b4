"""If this breaks, a host without a TPU is taken for one with it, or a card is overlooked."""

import pytest

from simclr_tf.distribute import environment


@pytest.fixture(autouse=True)
def no_accelerator_type(monkeypatch):
    for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "ACCELERATOR_TYPE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("cards", "files", "there"),
    [
        (("v3",), ("dev/accel0",), True),
        (("gvnic", "v5e"), ("dev/vfio/0", "dev/vfio/vfio"), True),
        ((), ("dev/vfio/0",), True),  # a container that does not show the cards
        (("gvnic", "disk", "nvidia"), ("dev/vfio/0", "dev/vfio/vfio"), False),
        (("v5e",), ("dev/vfio/vfio",), False),
        (("v5e",), (), False),
        ((), ("dev/accel/accel0",), False),  # the kernel's name for others' accelerators
    ],
)
def test_cards_passed_through_by_vfio_are_no_tpus(make_host, cards, files, there):
    assert environment.has_tpu_devices(make_host(*cards, files=files)) == there


@pytest.mark.parametrize(
    ("cards", "accelerator_type", "generation"),
    [
        (("gvnic", "v5e"), None, "v5e"),
        (("v6e",), "v4-8", "v6e"),  # a card is surer than a variable
        (("v3",), None, "v2 or v3"),
        (("v5p",), None, "v5p"),
        (("later",), None, None),
        (("intel",), None, None),
        ((), "v5litepod-16", "v5e"),
        ((), "tpu-v5-lite-podslice", "v5e"),
        ((), "v5p-8", "v5p"),
        ((), "tpu-v6e-slice", "v6e"),
        ((), "v3-8", "v3"),
        ((), "tpu7x-8", "tpu7x"),
        ((), "v55-8", None),
        ((), None, None),
    ],
)
def test_the_generation_of_a_tpu(make_host, monkeypatch, cards, accelerator_type, generation):
    if accelerator_type:
        monkeypatch.setenv("TPU_ACCELERATOR_TYPE", accelerator_type)
    assert environment.tpu_generation(make_host(*cards)) == generation


@pytest.mark.parametrize(
    ("cards", "files", "seen_by"),
    [
        ((), ("dev/nvidia0", "dev/nvidiactl"), "/dev/nvidia0"),
        ((), ("dev/nvidiactl",), "/dev/nvidiactl"),
        ((), ("proc/driver/nvidia/gpus/0000:01:00.0/information",), "/proc/driver/nvidia/gpus"),
        (("nvidia",), (), "the PCI card 0x10de:0x2330"),
        (("nvidia switch",), (), None),  # a switch between cards
        (("amd", "gvnic"), (), None),
        ((), (), None),
    ],
)
def test_an_nvidia_card_is_seen_by_any_of_its_traces(make_host, cards, files, seen_by):
    found = environment.nvidia_card(make_host(*cards, files=files))
    assert found is None if seen_by is None else found.startswith(seen_by)


@pytest.mark.parametrize(
    ("asked", "variable", "devices", "name"),
    [
        ("auto", None, True, "local"),
        ("auto", None, False, "none"),
        ("auto", "mine", True, "mine"),
        ("none", "mine", True, "none"),
        ("grpc://10.0.0.2:8470", None, False, "grpc://10.0.0.2:8470"),
    ],
)
def test_which_tpu_is_meant(monkeypatch, asked, variable, devices, name):
    monkeypatch.setattr(environment, "has_tpu_devices", lambda: devices)
    if variable:
        monkeypatch.setenv("TPU_NAME", variable)
    assert environment.tpu_name(asked) == name
