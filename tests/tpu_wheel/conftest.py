"""What a TPU host runs, on a machine without a TPU.

The tests are for an environment with `.[tpu]`, which `.ci/run` makes: its TensorFlow has no XLA for
the host. TPU_LOAD_LIBRARY=0 keeps libtpu from looking for a TPU. With another TensorFlow they are
skipped, since they are the longest, and other tests do the same with it.
"""

import importlib.metadata
import pathlib

import pytest

from tests.support.colours import IMAGES, jpeg

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    names = {d.name.replace("_", "-") for d in importlib.metadata.distributions()}
    if "tensorflow-tpu" not in names:
        skip = pytest.mark.skip(reason="pip install -e '.[tpu,tpu-test]' in another environment")
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(skip)


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
