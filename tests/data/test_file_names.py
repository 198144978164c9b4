"""If this breaks, an image of an unusual name ends a run, or nobody finds it by what is said."""

import csv
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from simclr_tf import names
from simclr_tf.augment.policy import augmentation
from simclr_tf.data import cache
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.plain_images import plain_images
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import embedding_figures, projector
from simclr_tf.evaluation.embedding import Embedding, write_vectors
from simclr_tf.evaluation.features import Features
from simclr_tf.report.markup import tag
from tests.support.views import pairs

# Latin-1, a newline, formulas of matplotlib, formats of Python, gin and logs, quotes, a tab.
FOLDERS = [b"caf\xe9 $\\frac", b"_dog\n%s {x} @y"]
FILES = [b"\xff.png", b"a\nb.png", b"'\"%s.png", "日本.png".encode(), b"$1$ ~,;#.png", b" \t.png"]


@pytest.fixture
def wild(tmp_path):
    """Images whose name tells their colour, each in two folders."""
    root = os.fsencode(tmp_path) + b"/photos \xe9 100%"
    try:
        for folder in FOLDERS:
            os.makedirs(os.path.join(root, folder))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for i, folder in enumerate(FOLDERS):
        for j, file in enumerate(FILES):
            with open(os.path.join(root, folder, file), "wb") as opened:
                Image.new("RGB", (20, 20), (i * 100, j * 40, 7)).save(opened, "PNG")
    return open_folder(os.fsdecode(root), "train")


def colours(source):
    """Returns label, colour -> file, as the names say."""
    return {
        (FOLDERS.index(os.path.basename(os.path.dirname(path))) * 100, file): index
        for index, path in enumerate(map(os.fsencode, source.paths))
        for file in [FILES.index(os.path.basename(path)) * 40]
    }


def training_batch(source, bad):
    groups = pairs(augmentation(policy=()), 8)
    views = ViewsPipeline(source=source, groups=groups, seed=0, bad_images=bad)
    dataset = views.dataset(HostSlice(index=0, num_hosts=1, replicas=1, per_replica=12))
    return next(dataset.as_numpy_iterator())


def test_every_file_is_read(wild):
    assert wild.num_examples == 12 and sorted(np.bincount(wild.labels)) == [6, 6]
    images, _, index = next(plain_images(wild, 8, 12, BadImages(wild)))
    means = np.rint(images.mean((1, 2)) * 255)[:, :2]
    assert {tuple(mean): n for mean, n in zip(means, index, strict=True)} == colours(wild)


def test_every_held_file_is_read(wild):
    held = cache.hold(wild, "decoded")
    bad = BadImages(held)
    means = np.rint(training_batch(held, bad)["images"][:12].mean((1, 2)) * 255)[:, :2]
    assert set(map(tuple, means)) == set(colours(wild)) and len(bad) == 0


def test_names_are_shown_on_any_terminal_and_in_any_file(wild):
    assert sorted(wild.class_names) == ["_dog\n%s {x} @y", r"caf\xe9 $\frac"]
    for text in (wild.name, *wild.class_names, *(wild.name_of(i) for i in range(12))):
        text.encode()
    assert names.shown("a\nb\x1b[31m\udce9") == r"a\nb\x1b[31m\xe9"
    assert tag("p", "caf\udce9").encode() == rb"<p>caf\xe9</p>"
    assert names.listed((f"c{i}" for i in range(12)), 3) == "c0, c1, c2 and 9 more"


def test_embeddings_name_them(wild, tmp_path):
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    embedding = Embedding(wild, Features(values, wild.labels, np.arange(12)))
    write_vectors(embedding, str(tmp_path), parquet=False)
    with open(tmp_path / "images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [names.as_text(path) for path in wild.paths]
    embedding_figures.neighbours(embedding, np.array([0, 7]), 3, 16, str(tmp_path))
    embedding_figures.plane(embedding, values[:, :2], f"map of {wild.name}", str(tmp_path))
    projector.write(embedding, "encoder", str(tmp_path / "projector"))
    lines = (tmp_path / "projector" / "metadata.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 13 and all(line.count("\t") == 1 for line in lines)


def test_a_bad_image_is_named(wild):
    """The file of a held copy is read again to find the reason."""
    for path in wild.paths[3:5]:  # one of a few images may be bad
        pathlib.Path(path).write_bytes(b"no image")
    held = cache.hold(wild, "decoded")
    bad = BadImages(held)
    training_batch(held, bad)
    with pytest.raises(RequestError) as error:
        bad.check()
    assert names.shown(wild.paths[3]) in str(error.value)


def test_a_file_that_is_gone_is_named(wild):
    (gone,) = [
        path for path in wild.paths if os.fsencode(path).endswith(b"caf\xe9 $\\frac/\xff.png")
    ]
    os.unlink(gone)
    with pytest.raises(RequestError, match=r"must be readable.*xff\.png; No such file"):
        list(plain_images(wild, 8, 12, BadImages(wild)))


def test_a_home_folder_is_found_wherever_a_path_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    assert open_folder("~", "train").paths == [str(tmp_path / "1.png")]
    assert names.local("~/runs") == f"{tmp_path}/runs"
    with pytest.raises(RequestError, match=r"must be UTF-8. Received: runs/caf\\xe9"):
        names.local("runs/caf\udce9")
