"""If this breaks, parts of a data set hold other images or shares of labels than they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.source import ArraySource, FileSource
from simclr_tf.data.subset import class_balanced, sample
from simclr_tf.data.tfrecord_source import open_tfrecord
from simclr_tf.errors import RequestError


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
    found, found_labels = read(source.select(positions))
    np.testing.assert_array_equal(found, images[positions])
    np.testing.assert_array_equal(found_labels, labels[positions])


def test_names_are_those_of_the_whole(source):
    part = source.select([7, 2])
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


def arrays(labels):
    labels = np.asarray(labels)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3))
    return ArraySource(
        name="arrays",
        num_examples=len(labels),
        class_names=["a", "b", "c"],
        images=images.astype(np.uint8),
        labels=labels,
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=3, max_size=200), st.floats(0.01, 0.99))
def test_every_class_keeps_its_share(labels, share):
    source = arrays(labels)
    found = class_balanced(source, share, seed=3)
    for label in set(labels):
        expected = max(1, round(share * labels.count(label)))
        assert (found.labels == label).sum() == expected
    assert found.num_examples == len(found.labels) == len(found.images)
    # Images keep their labels, and none comes twice.
    places = found.images[:, 0, 0, 0]
    assert len(set(places)) == len(places)
    np.testing.assert_array_equal(source.labels[places], found.labels)


def test_a_seed_draws_the_same_and_smaller_shares_are_part_of_larger_ones():
    source = arrays(np.arange(200) % 3)
    one, ten, other = (
        class_balanced(source, s, seed) for s, seed in ((0.1, 1), (0.5, 1), (0.1, 2))
    )
    again = class_balanced(source, 0.1, 1)
    np.testing.assert_array_equal(one.images, again.images)
    assert set(one.images[:, 0, 0, 0]) < set(ten.images[:, 0, 0, 0])
    assert not np.array_equal(one.images, other.images)
    assert one.fingerprint() != other.fingerprint()


def test_files_keep_their_paths():
    labels = np.array([0, 1, 0, 1])
    source = FileSource(
        name="f", num_examples=4, class_names=["a", "b"], paths=list("wxyz"), labels=labels
    )
    found = class_balanced(source, 0.5, 0)
    assert [labels["wxyz".index(p)] for p in found.paths] == list(found.labels)
    assert class_balanced(source, 1.0, 0) is source


def test_records_and_impossible_shares_are_refused():
    records = RecordSource(
        name="r", num_examples=9, class_names=["a", "b"], files=[], parse=lambda x: x
    )
    with pytest.raises(RequestError, match="imagenet2012_subset/1pct"):
        class_balanced(records, 0.01, 0)
    for share in (0.0, 1.5):
        with pytest.raises(RequestError, match=r"must be in \(0, 1\]"):
            class_balanced(arrays([0, 1, 2]), share, 0)
