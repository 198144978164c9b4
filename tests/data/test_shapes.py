"""If this breaks, the default data set changes, leaks its labels through colour, or half loads."""

import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.linear_model import LogisticRegression

from simclr_tf.data import shapes

CHANCE = 1 / len(shapes.CLASSES)


@pytest.fixture(scope="module")
def pictures():
    """The first 4,000 training pictures and the whole test split, each with its labels."""
    return shapes.render(0, "train", 0, 4000), shapes.render(0, "test", 0, 2000)


@pytest.fixture
def small(monkeypatch):
    """A data set of 250 + 30 pictures: more than a block, less than a second."""
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 250, "test": 30})


def digests(images):
    return {image.tobytes() for image in images}


def histograms(images):
    """The joint colour histogram of 4×4×4 bins, [n, 64], each row sums to 1."""
    bins = (images // 64).astype(np.int64) @ np.array([16, 4, 1])
    return np.stack([np.bincount(row.ravel(), minlength=64) for row in bins]) / bins[0].size


def test_render_returns_images_and_labels():
    images, labels = shapes.render(3, "train", 7, 5)
    assert images.shape == (5, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (5,) and labels.dtype == np.int64
    assert shapes.render(3, "train", 7, 0)[0].shape == (0, 32, 32, 3)


def test_same_arguments_give_the_same_bytes():
    for first, second in zip(
        shapes.render(1, "train", 0, 30), shapes.render(1, "train", 0, 30), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_an_index_does_not_depend_on_where_the_call_starts():
    edge = shapes.BLOCK
    whole_images, whole_labels = shapes.render(1, "test", 0, 2 * edge + 10)
    for start, count in [(3, 4), (edge - 5, 10), (edge, edge), (2 * edge + 9, 1)]:
        images, labels = shapes.render(1, "test", start, count)
        np.testing.assert_array_equal(images, whole_images[start : start + count])
        np.testing.assert_array_equal(labels, whole_labels[start : start + count])


def test_seed_and_split_change_every_picture(pictures):
    (train, _), (test, _) = pictures
    other_seed, _ = shapes.render(1, "train", 0, 400)
    assert len(digests(train)) == 4000 and len(digests(test)) == 2000
    assert not digests(train) & (digests(test) | digests(other_seed))


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_balanced(split):
    size = shapes.SPLIT_SIZES[split]
    _, labels = shapes.render(0, split, size - 400, 400)
    assert size % len(shapes.CLASSES) == 0
    np.testing.assert_array_equal(np.bincount(labels), 400 // len(shapes.CLASSES))


@pytest.mark.parametrize(
    "arguments", [(0, "validation", 0, 1), (-1, "train", 0, 1), (0, "train", -1, 1)]
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match="Received: s"):
        shapes.render(*arguments)


def test_every_class_covers_the_same_area():
    """Coverage of 20 blocks: the class means differ by less than the sampling error of 3 %."""
    labels = np.arange(shapes.BLOCK) % len(shapes.CLASSES)
    cover = np.concatenate(
        [shapes._coverage(np.random.default_rng(i), labels).mean((1, 2)) for i in range(20)]
    )
    means = [cover[np.tile(labels, 20) == label].mean() for label in range(len(shapes.CLASSES))]
    np.testing.assert_allclose(means, np.mean(means), rtol=0.03)


def test_colours_do_not_give_the_class_away(pictures):
    (train, train_labels), (test, test_labels) = pictures
    classifier = LogisticRegression(C=100.0, max_iter=200)
    classifier.fit(histograms(train), train_labels)
    assert classifier.score(histograms(test), test_labels) < CHANCE + 0.06


def test_outlines_do_give_the_class_away(pictures):
    """Matching clean silhouettes at any shift and of either polarity names most pictures."""
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, None, None]
    grid_x, grid_y = ((a - 15.5) / (0.26 * 32) for a in np.meshgrid(np.arange(32.0), range(32)))
    x = np.cos(turns) * grid_x + np.sin(turns) * grid_y
    y = np.cos(turns) * grid_y - np.sin(turns) * grid_x
    scores = []
    _, (test, labels) = pictures
    light = test[:300].astype(np.float32) @ shapes._LUMA
    spectrum = np.fft.rfft2(light - light.mean((1, 2), keepdims=True))
    for name, outline in shapes._OUTLINES.items():
        scale, _ = shapes._geometry(name)
        silhouettes = (outline(x / scale, y / scale) < 0).astype(np.float32)
        silhouettes -= silhouettes.mean((1, 2), keepdims=True)
        silhouettes /= np.linalg.norm(silhouettes, axis=(1, 2), keepdims=True)
        matches = spectrum[:, None] * np.conj(np.fft.rfft2(silhouettes))
        scores.append(np.abs(np.fft.irfft2(matches)).max((1, 2, 3)))
    assert np.mean(np.argmax(scores, axis=0) == labels[:300]) > 0.6


def test_builder_stores_what_render_draws(small, tmp_path):
    builder = shapes.prepare(str(tmp_path))
    assert builder.info.features["label"].names == list(shapes.CLASSES)
    for split, count in shapes.SPLIT_SIZES.items():
        stored = {
            image.tobytes(): label
            for image, label in tfds.as_numpy(builder.as_dataset(split, as_supervised=True))
        }
        drawn = zip(*shapes.render(0, split, 0, count), strict=True)
        assert builder.info.splits[split].num_examples == count
        assert stored == {image.tobytes(): label for image, label in drawn}


def test_pictures_can_be_read_undecoded(small, tmp_path):
    shapes.prepare(str(tmp_path))
    builder = tfds.builder("shapes", data_dir=str(tmp_path))
    dataset = builder.as_dataset("test", decoders={"image": tfds.decode.SkipDecoding()})
    example = next(iter(dataset))
    assert example["image"].dtype == tf.string
    assert tf.io.decode_png(example["image"]).shape == (32, 32, 3)


def test_prepare_is_quiet_offline_and_writes_once(small, tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise AssertionError(f"prepare went to the network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    first = shapes.prepare(str(tmp_path))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(shapes, "render", refuse)
    again = shapes.prepare(str(tmp_path))
    assert again.info.splits["train"].num_examples == first.info.splits["train"].num_examples == 250


def test_an_interrupted_build_leaves_nothing_that_loads(small, tmp_path, monkeypatch):
    render = shapes.render

    def stop_late(seed, split, start, count):
        if split == "test":
            raise KeyboardInterrupt
        return render(seed, split, start, count)

    monkeypatch.setattr(shapes, "render", stop_late)
    with pytest.raises(KeyboardInterrupt):
        shapes.prepare(str(tmp_path))
    assert not shapes.Shapes(data_dir=str(tmp_path)).data_path.exists()
    monkeypatch.setattr(shapes, "render", render)
    assert shapes.prepare(str(tmp_path)).info.splits["test"].num_examples == 30


def test_a_second_process_that_was_faster_is_no_error(small, tmp_path, monkeypatch):
    render, rivals = shapes.render, []

    def finish_elsewhere_first(*arguments):
        monkeypatch.setattr(shapes, "render", render)
        rivals.append(shapes.prepare(str(tmp_path)))
        return render(*arguments)

    monkeypatch.setattr(shapes, "render", finish_elsewhere_first)
    builder = shapes.prepare(str(tmp_path))
    assert len(rivals) == 1 and len(list(builder.as_dataset("train"))) == 250


@pytest.mark.slow
def test_whole_data_set(tmp_path):
    splits = shapes.prepare(str(tmp_path)).info.splits
    assert {name: split.num_examples for name, split in splits.items()} == {
        "train": 10_000,
        "test": 2_000,
    }
