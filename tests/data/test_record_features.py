"""If this breaks, labels or images of records are taken from the wrong place, or in silence."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import data
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError
from tests.data.conftest import encode, picture


def example(**values):
    kinds = {bytes: ("bytes_list", tf.train.BytesList), float: ("float_list", tf.train.FloatList)}
    features = {}
    for name, value in values.items():
        some = value if isinstance(value, list) else [value]
        field, kind = kinds.get(type(some[0]), ("int64_list", tf.train.Int64List))
        features[name.replace("__", "/")] = tf.train.Feature(**{field: kind(value=some)})
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def write(tmp_path):
    def write(*labels, key="label", name="a.tfrecord", **others):
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for i, label in enumerate(labels):
                values = {"image": encode(picture(i), "JPEG"), **others}
                writer.write(example(**(values if label is None else values | {key: label})))
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([b"cat", b"dog"], r"bytes such as b'cat' in record 0 of .*a\.tfrecord"),
        ([0, [0, 1]], r"2 numbers in record 1 of .*a\.tfrecord"),
        ([1, 0, None, 1], r"no feature label in record 2 of .*a\.tfrecord"),
        ([None, 1], r"no feature label in record 0"),
        ([1.5], r"the real number 1\.5 in record 0"),
        ([0] * 1500 + [[3, 4, 5]], "3 numbers in record 1500"),
    ],
    ids=["text", "two", "missing", "missing first", "real", "in a later batch"],
)
def test_labels_of_another_type_are_told_with_it(labels, found, write):
    with pytest.raises(RequestError, match=rf"Received: {found}(.|\n)*label_feature = None"):
        tfrecord_source.open_tfrecord(write(*labels))
    source = tfrecord_source.open_tfrecord(write(*labels), label_feature=None)
    assert source.num_examples == len(labels) and source.num_classes is None
    assert source.class_counts() is None


def test_features_may_be_named(write):
    path = write(b"cat", b"dog", number=[1], photo=encode(picture(7), "PNG"))
    source = tfrecord_source.open_tfrecord(path, image_feature="photo", label_feature="number")
    assert source.class_names == ["0", "1"]
    images, labels, _ = next(plain_images(source, 12, 9, BadImages(source)))
    np.testing.assert_array_equal(labels, [1, 1])
    np.testing.assert_array_equal(images[0], images[1])
    others = (tfrecord_source.open_tfrecord(path, label_feature="number"),)
    assert source.fingerprint() != others[0].fingerprint()


def test_a_recipe_names_them(write):
    path = write(b"cat", b"dog")
    with gin.unlock_config():
        gin.bind_parameter("tfrecord.label_feature", None)
    try:
        assert data(source=f"tfrecord:{path}", data_dir=None).train().num_classes is None
    finally:
        gin.clear_config()


@pytest.mark.parametrize("asked", ["image_feature", "label_feature"])
def test_a_feature_that_is_not_there_is_told_with_those_that_are(asked, write):
    path = write(0, 1)
    with pytest.raises(RequestError, match=r"'foto'.*image \(bytes.*\), label \(the number 0\)"):
        tfrecord_source.open_tfrecord(path, **{asked: "foto"})


def test_images_under_another_name_are_told(write, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        writer.write(example(jpeg=encode(picture(0), "JPEG"), label=1))
    with pytest.raises(RequestError, match=r"tfrecord\.image_feature.*jpeg \(bytes.*label"):
        tfrecord_source.open_tfrecord(str(tmp_path / "b.tfrecord"))


@pytest.mark.parametrize("pixels", [bytes(range(192)), [3] * 192, [0.5] * 192])
def test_raw_pixels_are_no_encoded_image(pixels, write):
    words = r"192 (bytes(.|\n)*may be raw|numbers|real numbers)"
    with pytest.raises(RequestError, match=words) as error:
        tfrecord_source.open_tfrecord(write(0, 1, image=pixels))
    assert "record 0 of" in str(error.value) and "tfrecord.image_feature" in str(error.value)


def test_one_damaged_image_at_the_front_does_not_count_as_raw(write, tmp_path):
    path = str(tmp_path / "b.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for content in (b"damaged", encode(picture(1), "JPEG")):
            writer.write(example(image=content))
    source = tfrecord_source.open_tfrecord(path)
    bad = BadImages(source, limit=1.0)
    assert len(next(plain_images(source, 12, 9, bad))[0]) == len(bad) == 1


def test_images_of_each_class_are_counted(write):
    source = tfrecord_source.open_tfrecord(write(0, 2, 2, -1, 1, 2))
    assert source.class_names == ["0", "1", "2"]
    np.testing.assert_array_equal(source.class_counts(), [1, 1, 3])
    assert source.select([1, 2]).class_counts() is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 2], "no image has label 0, yet each label from 0 to 2 counts"),
        ([0, 20], "no image has label 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 9 more"),
    ],
)
def test_labels_that_never_occur_are_told(labels, words, write, caplog):
    source = open_source(f"tfrecord:{write(*labels)}", "train", None)
    assert source.num_classes == labels[-1] + 1
    assert words in source.notes[0] and words in caplog.text
