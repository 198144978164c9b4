"""If this breaks, "1 % of the labels" is another share, or another draw, than the result says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.data.source import ArraySource, FileSource, RecordSource
from simclr_tf.data.subset import class_balanced
from simclr_tf.errors import RequestError


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
