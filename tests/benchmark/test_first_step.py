"""If this breaks, `tools/doctor.py --step` praises a host that cannot train, or none."""

import re

import pytest
import tensorflow as tf

from simclr_tf.benchmark import first_step
from simclr_tf.errors import RequestError


@pytest.mark.slow
@pytest.mark.own_process
def test_a_sound_host_decodes_and_trains_at_either_place():
    found = first_step.measure("none")
    assert list(found) == ["host", "device"]
    for level, text in found.values():
        rates = re.fullmatch(
            r"the host makes (\d+) images/s; ([\d.]+) steps/s of 8 images on 1 replica", text
        )
        assert level == "ok" and rates and float(rates[1]) > 0 and float(rates[2]) > 0


@pytest.mark.slow
def test_photos_that_do_not_decode_are_no_success(monkeypatch):
    real = first_step._write_photos

    def spoilt(folder, count):
        real(folder, count)
        for path in list(folder.iterdir())[:1]:
            path.write_bytes(path.read_bytes()[:-2000])

    monkeypatch.setattr(first_step, "_write_photos", spoilt)
    monkeypatch.setattr(first_step, "PLACES", ("device",))
    assert first_step.measure("none")["device"][0] == "ERROR"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RequestError("No such folder.\n  In call to configurable 'x'"), "No such folder."),
        (tf.errors.NotFoundError(None, None, "no\nkernel"), "NotFoundError: no kernel"),
        (ValueError(), "ValueError: no message"),
    ],
)
def test_the_first_error_is_told_in_one_line(monkeypatch, error, words):
    def failing(*args, **kwargs):
        raise error

    monkeypatch.setattr(first_step, "pretraining", failing)
    assert first_step.measure("none") == {"host": ("ERROR", words), "device": ("ERROR", words)}


def test_a_strategy_that_cannot_be_had_is_told(monkeypatch):
    def refused(tpu):
        raise RequestError("The TPU must be reachable.")

    monkeypatch.setattr(first_step, "create_strategy", refused)
    assert first_step.measure("local")["host"] == ("ERROR", "The TPU must be reachable.")


def test_a_number_that_is_not_finite_is_no_success():
    first_step._check_finite(None)
    with pytest.raises(RequestError, match="Step 3"):
        first_step._check_finite(3)
