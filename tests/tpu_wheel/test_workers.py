"""If this breaks, the workers of a TPU slice read the same images, or none."""

import json
import pathlib

import numpy as np
import pytest

from tests.support.colours import IMAGES, jpeg
from tests.support.tpu_slice import start, two_workers

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).with_name("two_workers.py")
BROKEN = (4, 13, 22)


@pytest.fixture
def photos(tmp_path) -> pathlib.Path:
    for number in range(IMAGES):
        content = jpeg(number)
        if number in BROKEN:
            content = content[: len(content) // 9]
        (tmp_path / f"{number:02}.jpg").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_workers_read_disjoint_shares_and_bad_images_are_counted_once(photos, augment_on):
    with two_workers() as (_, ports):
        coordinator = start(SCRIPT, photos, augment_on, *ports)
        output, _ = coordinator.communicate(timeout=900)
    assert coordinator.returncode == 0, output
    found = json.loads(output.splitlines()[-1])
    shares = [np.reshape(found["workers"][worker], [3, 4]) for worker in "01"]
    together = np.concatenate(shares, axis=1).ravel()
    assert list(together) == found["alone"]
    whole = set(range(IMAGES)) - set(BROKEN)
    assert set(together) == whole  # three are there twice, in place of those that do not decode
    skipped = [line.rpartition("/")[2] for line in output.splitlines() if "does not decode" in line]
    assert sorted(skipped) == [f"{number:02}.jpg" for number in BROKEN]
