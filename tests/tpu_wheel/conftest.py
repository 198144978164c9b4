"""What a TPU host runs, on a machine without a TPU.

The tests run with any TensorFlow. `.ci/run` also runs them in an environment with `.[tpu]`, whose
TensorFlow has no XLA for the host; there TPU_LOAD_LIBRARY=0 keeps libtpu from looking for a TPU.
"""

import pathlib

import pytest

from tests.support.colours import IMAGES, jpeg


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> pathlib.Path:
    """Splits `train` and `test` of two classes, 24 JPEGs each, every image of one colour."""
    folder = tmp_path_factory.mktemp("photos")
    for split, width in (("train", 60), ("test", 50)):
        for number in range(IMAGES):
            path = folder / split / "ab"[number % 2] / f"{number:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number, width))
    return folder
