"""If this breaks, a new kind of source needs more than a class and a line of a table."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import folder_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import data
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source import Source
from simclr_tf.data.source_kinds import SOURCE_KINDS, SourceKind, open_source
from simclr_tf.data.subset import class_balanced, sample
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from tests.support.views import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedSource(Source):
    """Encoded images, one after the other in a file; `places` are where each begins and ends."""

    path: str
    places: Sequence[tuple[int, int]]

    def select(self, positions):
        return self._part(np.asarray(positions), places=[self.places[i] for i in positions])

    def files_read(self):
        return [self.path]

    def reader(self):
        places = tf.constant(self.places, tf.int32)

        def read(i):
            begin, end = tf.unstack(places[i])
            return tf.strings.substr(tf.io.read_file(self.location(self.path)), begin, end - begin)

        return read

    def _contents(self):
        yield repr((self.path, self.places)).encode()


def open_packed(path, split, data_dir):
    places = np.load(f"{path}.{split}.npy")
    return PackedSource(
        name=f"packed:{path}",
        num_examples=len(places),
        class_names=["even", "odd"],
        labels=np.arange(len(places)) % 2,
        path=path,
        places=places.tolist(),
    )


@pytest.fixture
def files(photos):
    return folder_source.open_folder(str(photos), "train")


@pytest.fixture
def packed(files, tmp_path, monkeypatch):
    """The images of `files`, the third of them damaged, in a file of a kind made up here."""
    contents = [pathlib.Path(path).read_bytes() for path in files.paths]
    contents[2] = contents[2][:40]
    pathlib.Path(files.paths[2]).write_bytes(contents[2])
    ends = np.cumsum([len(content) for content in contents])
    path = tmp_path / "images.packed"
    path.write_bytes(b"".join(contents))
    np.save(f"{path}.train.npy", np.stack([np.append(0, ends[:-1]), ends], axis=1))
    monkeypatch.setitem(SOURCE_KINDS, "packed", SourceKind("'packed:PATH'", open_packed))
    return open_source(f"packed:{path}", "train", None)


def batches(source, augment_on):
    bad_images = BadImages(source, limit=1.0)
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(("flip", 0.5),)), 12),
        seed=3,
        bad_images=bad_images,
        augment_on=augment_on,
    )
    found = pipeline.dataset(HostSlice(index=0, num_hosts=1, replicas=1, per_replica=4))
    return list(found.take(3).as_numpy_iterator()), len(bad_images)


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_training_gives_what_files_of_the_same_images_give(packed, files, augment_on):
    (found, bad), (expected, expected_bad) = batches(packed, augment_on), batches(files, augment_on)
    assert bad == expected_bad == 1
    for batch, by_files in zip(found, expected, strict=True):
        np.testing.assert_array_equal(batch["images"], by_files["images"])
        np.testing.assert_array_equal(batch["index"], by_files["index"])
        np.testing.assert_array_equal(batch["labels"], batch["index"] % 2)


def test_evaluation_and_parts(packed, files):
    def read(source):
        return next(plain_images(source, 12, 20, BadImages(source)))

    images, labels, index = read(packed)
    np.testing.assert_array_equal(images, read(files)[0])
    np.testing.assert_array_equal(labels, index % 2)
    part = sample(packed, 5, seed=1)
    assert part.num_examples == 5 and part.fingerprint() != packed.fingerprint()
    half = class_balanced(packed, 0.5, seed=1)
    assert sorted(half.labels) == [0, 0, 0, 1, 1, 1]
    found = read(packed.select([4, 3]))
    np.testing.assert_array_equal(found[0], images[[3, 2]])  # without the damaged third


def test_a_held_copy_is_read_in_its_place(packed):
    expected, _ = batches(packed, "host")
    recipe = data(source=packed.name, cache="encoded", data_dir=None)
    held = recipe.held(packed, "none")
    assert held.cache == "encoded"
    pathlib.Path(packed.path).write_bytes(b"")
    found, _ = batches(held, "host")
    np.testing.assert_array_equal(found[2]["images"], expected[2]["images"])


def test_the_kind_is_known_where_sources_are_named(packed):
    recipe = data(source=packed.name, data_dir=None)
    assert recipe.train().num_examples == packed.num_examples
    with pytest.raises(RequestError, match=r"or 'packed:PATH'. Received: 'packed:'"):
        open_source("packed:", "train", None)
