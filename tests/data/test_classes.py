"""If this breaks, an evaluation gives the classes of its images other numbers than training did."""

import numpy as np
import pytest

from simclr_tf.data.classes import numbered_as
from simclr_tf.data.source import FileSource
from simclr_tf.errors import RequestError


def of(names, labels):
    return FileSource(
        name="folder:photos",
        num_examples=len(labels),
        class_names=names,
        labels=np.array(labels),
        paths=[str(i) for i in range(len(labels))],
    )


def test_a_split_that_lacks_classes_gets_the_numbers_of_training():
    train = of(["ant", "bee", "cat", "dog"], [0, 1, 2, 3])
    found = numbered_as(train, of(["bee", "dog"], [0, 1, 1, 0]))
    assert found.class_names == train.class_names and found.labels.tolist() == [1, 3, 3, 1]
    assert found.paths == ["0", "1", "2", "3"]


def test_the_same_classes_and_none_stay_as_they_are():
    train = of(["ant", "bee"], [0, 1])
    for names, labels in ((["ant", "bee"], [1, 0]), (None, [-1, -1])):
        source = of(names, labels)
        assert numbered_as(train, source) is source


def test_classes_that_training_lacks_are_named_and_long_lists_cut():
    train = of([f"t{i:03d}" for i in range(100)], list(range(100)))
    other = of(["t001", *(f"x{i:03d}" for i in range(30))], list(range(31)))
    with pytest.raises(RequestError, match=r"x000, .*x009 and 20 more") as told:
        numbered_as(train, other)
    text = str(told.value)
    assert "t009 and 90 more" in text and "x010" not in text and "t001 in" not in text
