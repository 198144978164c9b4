"""If this breaks, a prepared data set gives other pictures or labels than it holds."""

import contextlib
import io
import re
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from simclr_tf.data import tfds_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.dataset import data
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.source import ArraySource
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError
from tests.data.conftest import picture

F = tfds.features


def pixels(i, size=16, channels=3, dtype=np.uint8, scale=1):
    """A picture, [size, size, channels]: levels from 0 to 255, times `scale`."""
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    levels = np.array(picture(i, (size, size)).convert(modes[channels]))
    return (levels.reshape(size, size, channels).astype(np.float64) * scale).astype(dtype)


@pytest.fixture
def prepared(tmp_path):
    """Prepares six examples in each of two splits; returns a function that opens one."""

    def prepare(features, example, file_format="tfrecord", name="made_up"):
        def examples(first):
            return ((i, example(first + i)) for i in range(6))

        members = {
            "name": name,
            "VERSION": tfds.core.Version("1.0.0"),
            "_info": lambda self: tfds.core.DatasetInfo(
                builder=self, features=F.FeaturesDict(features)
            ),
            "_split_generators": lambda self, _: {"train": examples(0), "test": examples(10)},
            "_generate_examples": None,
            "__module__": __name__,
        }
        maker = types.new_class(
            name,
            (tfds.core.GeneratorBasedBuilder,),
            {"skip_registration": True},
            lambda namespace: namespace.update(members),
        )
        tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        with contextlib.redirect_stdout(io.StringIO()):
            builder = maker(data_dir=str(tmp_path), file_format=file_format)
            builder.download_and_prepare(download_config=config)
        return lambda split="train": open_source(f"tfds:{name}", split, str(tmp_path))

    return prepare


def read(source, size=16):
    images, labels, _ = next(plain_images(source, size, 9, BadImages(source)))
    return images, labels


@pytest.mark.parametrize(("shape", "channels"), [(16, 1), (16, 3), (16, 4), (None, 1)])
def test_uint16_is_read_as_the_same_pictures_in_uint8(shape, channels, prepared, tmp_path):
    def opened(dtype, scale, name):
        image = F.Image(shape=(shape, shape, channels), dtype=dtype)
        return prepared(
            {"image": image},
            lambda i: {"image": pixels(i, 16, channels, dtype, scale)},
            name=name,
        )()

    fine, plain = opened(np.uint16, 257, "fine"), opened(np.uint8, 1, "plain")
    assert isinstance(fine, RecordSource if shape is None else ArraySource)
    np.testing.assert_array_equal(read(fine)[0], read(plain)[0])
    expected = np.stack([pixels(i, 16, channels) for i in range(6)])[..., :3]
    expected = np.sort(np.broadcast_to(expected, [6, 16, 16, 3]), axis=0) / 255
    np.testing.assert_allclose(np.sort(read(fine)[0], axis=0), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [16, None], ids=["one size", "any size"])
def test_gray_with_alpha_is_gray(shape, prepared):
    source = prepared(
        {"image": F.Image(shape=(shape, shape, 2), encoding_format="png")},
        lambda i: {"image": pixels(i, 16, 2)},
    )()
    images, _ = read(source)
    assert images.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


@pytest.mark.parametrize(
    ("feature", "example", "words"),
    [
        (F.Image(shape=(16, 16, 1), dtype=np.float32), 1, r"Image\(.*float32"),
        (F.Image(shape=(None, None, 1), dtype=np.float32), 1, r"Image\(.*float32"),
        (F.Tensor(shape=(16, 16, 13), dtype=np.uint8), 13, r"Tensor\(shape=\(16, 16, 13\)"),
        (F.Tensor(shape=(16, 16), dtype=np.uint8), 0, r"Tensor\(shape=\(16, 16\)"),
        (
            F.Tensor(shape=(None, None, 3), dtype=np.uint8, encoding="zlib"),
            3,
            "must hold encoded images",
        ),
        (F.Sequence(F.Image(shape=(16, 16, 1))), -1, "Sequence"),
    ],
    ids=["float", "float of any size", "13 channels", "no channels", "raw of any size", "several"],
)
def test_other_images_are_refused_by_name(feature, example, words, prepared):
    def image(i):
        if example <= 0:
            return np.zeros([16, 16], np.uint8) if example == 0 else [pixels(i, 16, 1)]
        return np.zeros([16, 16, example], feature.np_dtype)

    opened = prepared({"image": feature}, lambda i: {"image": image(i)})
    with pytest.raises(RequestError, match=words) as error:
        opened()
    assert f"'image' of type {type(feature).__name__}" in str(error.value)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("label", "values", "classes"),
    [
        (F.ClassLabel(names=["cat", "dog"]), [0, 1], ["cat", "dog"]),
        (F.Scalar(np.int64), [0, 1], ["0", "1"]),
        (F.Scalar(np.uint8), [0, 2], ["0", "1", "2"]),
        (F.Scalar(np.bool_), [False, True], ["0", "1"]),
        (F.Tensor(shape=(), dtype=np.int32), [-1, 1], ["0", "1"]),
        (F.Scalar(np.int64), [0, 20261127], None),
        (F.Scalar(np.float32), [0.5, 1.5], None),
        (F.Text(), ["cat", "dog"], None),
        (F.Sequence(F.ClassLabel(num_classes=3)), [[0], [1, 2]], None),
    ],
    ids=["named", "int64", "uint8", "bool", "tensor", "dates", "real", "text", "several"],
)
def test_labels_are_used_or_told(label, values, classes, in_memory, prepared, monkeypatch):
    monkeypatch.setattr(tfds_source, "_IN_MEMORY_BYTES", 2**30 if in_memory else 0)
    source = prepared(
        {"image": F.Image(shape=(16, 16, 3)), "label": label},
        lambda i: {"image": pixels(i), "label": values[i % 2]},
    )()
    assert source.class_names == classes
    labels = read(source)[1]
    if classes is None:
        assert set(labels) == {-1} and source.labels is None
        assert "the labels are not used" in source.notes[0]
        return
    assert sorted(labels) == sorted(int(v) for v in values * 3)
    if in_memory or not isinstance(label, F.ClassLabel):
        expected = [np.count_nonzero(labels == i) for i in range(len(classes))]
        np.testing.assert_array_equal(source.class_counts(), expected)
    assert bool(source.notes) == (0 in np.bincount(labels[labels >= 0]))


def test_classes_under_another_name_are_told(prepared):
    source = prepared(
        {"image": F.Image(shape=(16, 16, 3)), "species": F.ClassLabel(num_classes=2)},
        lambda i: {"image": pixels(i), "species": i % 2},
    )()
    assert source.num_classes is None
    assert source.notes == ["there is no feature 'label', and 'species' is not used as one"]


@pytest.mark.parametrize("shape", [16, None], ids=["one size", "any size"])
def test_files_of_another_format_are_told_with_what_to_do(shape, prepared):
    pytest.importorskip("array_record")
    opened = prepared(
        {"image": F.Image(shape=(shape, shape, 3))},
        lambda i: {"image": pixels(i)},
        file_format="array_record",
    )
    words = r"as TFRecord files.*made_up/1\.0\.0 have the format array_record.*prepare_dataset"
    with pytest.raises(RequestError, match=words):
        opened()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        ("train", "test", 0),
        ("train", "train", 6),
        ("train+test", "test", 6),
        ("all", "test[:1]", 1),
        ("train[:50%]", "train[50%:]", 0),
        ("train[:4]", "train[2:]", 2),
        ("train[:4]+test[:3]", "test[2:]+train[3:]", 2),
    ],
)
def test_instructions_that_intersect_are_refused(
    train, test, shared, in_memory, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(tfds_source, "_IN_MEMORY_BYTES", 2**30 if in_memory else 0)
    prepared({"image": F.Image(shape=(16, 16, 3))}, lambda i: {"image": pixels(i)})
    recipe = data(source="tfds:made_up", train_split=train, eval_split=test, data_dir=str(tmp_path))
    if not shared:
        assert recipe.evaluation().num_examples
        return
    words = rf"not trained on.*'{re.escape(test)}'(.|\n)*: {shared} images"
    with pytest.raises(RequestError, match=words):
        recipe.evaluation()
