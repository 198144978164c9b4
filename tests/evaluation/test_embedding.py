"""If this breaks, a search finds other images than the vectors say, or names them wrongly."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import threadpoolctl
from google.protobuf import text_format
from sklearn.manifold import TSNE
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source import ArraySource
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import embedding_figures, projector
from simclr_tf.evaluation.embedding import Embedding, planar_map, require, write_vectors
from simclr_tf.evaluation.features import Features

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 32, 32, 3), np.uint8)


@pytest.fixture
def labelled():
    """30 images of two classes in memory, 28 of which have features."""
    source = ArraySource(
        name="arrays",
        num_examples=30,
        class_names=["left, or not", "right"],
        images=IMAGES,
        labels=np.arange(30) % 2,
    )
    index = np.delete(np.arange(30), [4, 9])
    values = RNG.normal(size=(28, 6)).astype(np.float32)
    return Embedding(source, Features(values, source.labels[index], index))


@pytest.fixture
def unlabelled(tmp_path):
    """Twelve files of which one does not decode."""
    folder = tmp_path / "photos of mine"
    folder.mkdir()
    for i, pixels in enumerate(IMAGES[:12]):
        (folder / f"{i:02d}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (folder / "01.png").write_bytes(b"not an image")
    source = open_folder(str(folder), "train")
    _, labels, index = next(plain_images(source, 16, 99, BadImages(source)))
    assert len(index) == source.num_examples - 1
    values = RNG.normal(size=(len(index), 6)).astype(np.float32)
    return Embedding(source, Features(values, labels, index))


def test_vectors_and_their_names(labelled, tmp_path):
    write_vectors(labelled, str(tmp_path), parquet=False)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), labelled.features.values)
    with open(tmp_path / "images.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["index"]) for line in lines] == labelled.features.index.tolist()
    assert lines[4]["name"] == "image 5 of arrays"
    assert (lines[4]["label"], lines[4]["class"]) == ("1", "right")
    assert lines[5]["class"] == "left, or not"
    assert not (tmp_path / "vectors.parquet").exists()


def test_parquet_says_the_same(unlabelled, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_vectors(unlabelled, str(tmp_path), parquet=True)
    table = parquet.read_table(tmp_path / "vectors.parquet")
    assert table.column_names == ["index", "name", "label", "class", "vector"]
    found = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found, unlabelled.features.values)
    assert set(table["label"].to_pylist()) == {-1} and set(table["class"].to_pylist()) == {""}
    names = table["name"].to_pylist()
    assert [name[-6:-4] for name in names] == [f"{i:02d}" for i in range(12) if i != 1]


def test_neighbours_are_the_most_similar_others(labelled):
    rows = np.array([5, 0, 27])
    similar = cosine_similarity(labelled.features.values)
    np.fill_diagonal(similar, -np.inf)
    found, similarities = labelled.neighbours(rows, 7)
    np.testing.assert_array_equal(found, np.argsort(-similar[rows], axis=1)[:, :7])
    np.testing.assert_allclose(similarities, -np.sort(-similar[rows], axis=1)[:, :7], atol=1e-6)


def test_an_image_is_not_its_own_neighbour_among_copies(labelled):
    features = dataclasses.replace(labelled.features, values=np.ones((28, 3), np.float32))
    copies = Embedding(labelled.source, features)
    found, _ = copies.neighbours(np.arange(28), 5)
    assert found.shape == (28, 5)
    assert not (found == np.arange(28)[:, None]).any()


def test_thumbnails_are_those_of_the_rows(labelled, unlabelled):
    rows = np.array([20, 3, 3, 7])
    images = labelled.rows(rows).thumbnails(32)
    np.testing.assert_array_equal(images, IMAGES[labelled.features.index[rows]])
    rows = np.array([6, 2])
    everything = next(plain_images(unlabelled.source, 16, 99, BadImages(unlabelled.source)))[0]
    expected = np.round(everything[rows] * 255)
    np.testing.assert_array_equal(unlabelled.rows(rows).thumbnails(16), expected)


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_map_keeps_groups_together(method):
    if method == "umap":
        pytest.importorskip("umap")
    labels = np.arange(90) % 3
    directions = np.eye(3, 12)[labels] + 0.1 * RNG.normal(size=(90, 12))
    lengths = RNG.uniform(0.1, 10, (90, 1))  # cosine similarity does not see them
    places = planar_map((directions * lengths).astype(np.float32), method, seed=0)
    assert places.shape == (90, 2) and np.isfinite(places).all()
    assert KNeighborsClassifier(5).fit(places, labels).score(places, labels) > 0.95


def test_a_map_does_not_depend_on_the_number_of_threads(monkeypatch):
    threads, real = [], TSNE.fit_transform

    def fit_transform(self, values):
        pools = threadpoolctl.threadpool_info()
        threads.extend(p["num_threads"] for p in pools if p["user_api"] == "openmp")
        return real(self, values)

    monkeypatch.setattr(TSNE, "fit_transform", fit_transform)
    with threadpoolctl.threadpool_limits(2, user_api="openmp"):
        planar_map(RNG.normal(size=(8, 4)).astype(np.float32), "tsne", 0)
    assert set(threads) == {1}


def test_a_map_of_few_images():
    assert planar_map(RNG.normal(size=(5, 4)).astype(np.float32), "tsne", 0).shape == (5, 2)
    with pytest.raises(RequestError, match="at least 5 images"):
        planar_map(RNG.normal(size=(4, 4)).astype(np.float32), "tsne", 0)


def test_sheets_are_pictures(labelled, unlabelled, tmp_path):
    for embedding in (labelled, unlabelled):
        count = len(embedding.features.index)
        paths = [
            embedding_figures.neighbours(embedding, np.array([3, 0]), 4, 32, str(tmp_path)),
            embedding_figures.plane(embedding, RNG.normal(size=(count, 2)), "a map", str(tmp_path)),
        ]
        for path in paths:
            picture = tf.io.decode_png(tf.io.read_file(path)).numpy()
            assert picture.shape[0] > 200 and picture.std() > 10


def test_the_projector_reads_what_was_written(unlabelled, tmp_path):
    config = pytest.importorskip("tensorboard.plugins.projector")
    projector.write(unlabelled, "representation", str(tmp_path))
    text = (tmp_path / "projector_config.pbtxt").read_text()
    (written,) = text_format.Parse(text, config.ProjectorConfig()).embeddings
    values = np.loadtxt(tmp_path / written.tensor_path, delimiter="\t")
    np.testing.assert_allclose(values, unlabelled.features.values, rtol=1e-5)
    header, *lines = (tmp_path / written.metadata_path).read_text().splitlines()
    assert header == "name\tclass" and len(lines) == len(values)
    assert [line.split("\t")[0] for line in lines] == unlabelled.names()
    sprite = tf.io.decode_png(tf.io.read_file(str(tmp_path / written.sprite.image_path))).numpy()
    side = written.sprite.single_image_dim[0]
    thumbnails = unlabelled.thumbnails(side)
    columns = sprite.shape[1] // side
    for number, thumbnail in enumerate(thumbnails):
        y, x = number // columns * side, number % columns * side
        np.testing.assert_array_equal(sprite[y : y + side, x : x + side], thumbnail)


def test_a_module_that_is_missing_is_named():
    require(["sklearn"])
    with pytest.raises(RequestError, match="no_such_module as configured"):
        require(["sklearn", "no_such_module"])
