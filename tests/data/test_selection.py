"""If this breaks, parts of a data set hold other images than they say."""

import numpy as np
import pytest

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder import open_folder
from simclr_tf.data.pipeline import plain_images
from simclr_tf.data.selection import sample, select
from simclr_tf.data.source import ArraySource
from simclr_tf.data.tfrecord import open_tfrecord


@pytest.fixture(params=["array", "files", "records"])
def source(request, photos, record_files):
    if request.param == "files":
        return open_folder(str(photos), "train")
    if request.param == "records":
        return open_tfrecord(record_files(5, 1, 6))
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    return ArraySource(
        name="arrays",
        num_examples=12,
        class_names=["a", "b"],
        images=images,
        labels=np.arange(12) % 2,
    )


def read(source):
    batches = list(plain_images(source, 16, 5, BadImages(source)))
    images, labels, index = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert len(labels) == source.num_examples
    np.testing.assert_array_equal(index, source.indices())
    return images, labels


@pytest.mark.parametrize("positions", [[3], [7, 2, 11, 0], [4, 5, 6, 7], list(range(12))])
def test_the_images_of_the_places_in_their_order(source, positions):
    images, labels = read(source)
    found, found_labels = read(select(source, positions))
    np.testing.assert_array_equal(found, images[positions])
    np.testing.assert_array_equal(found_labels, labels[positions])


def test_names_are_those_of_the_whole(source):
    part = select(source, [7, 2])
    if not isinstance(source, ArraySource):
        whole = [source.name_of(int(i)) for i in source.indices()]
        assert [part.name_of(int(i)) for i in part.indices()] == [whole[7], whole[2]]
    assert part.fingerprint() != source.fingerprint()


def test_a_sample_is_drawn_once_without_repetition(source):
    images, _ = read(source)
    part = sample(source, 7, seed=0)
    found, _ = read(part)
    assert len(np.unique(found, axis=0)) == 7
    assert all((images == image).all((1, 2, 3)).any() for image in found)
    assert sample(source, 7, seed=0).fingerprint() == part.fingerprint()
    assert sample(source, 12, seed=0) is source


def test_a_sample_of_records_takes_of_every_file_in_proportion(record_files):
    part = sample(open_tfrecord(record_files(8, 4, 4)), 8, seed=0)
    assert [(file.skip, file.count) for file in part.files] == [(0, 4), (0, 2), (0, 2)]
