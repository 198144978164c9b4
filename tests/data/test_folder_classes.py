"""If this breaks, images get other classes than their owner gave them, or lose them in silence."""

import numpy as np
import pytest

from simclr_tf.data.folder_classes import classes_of
from simclr_tf.data.folder_source import open_folder


def labels_of(*files):
    """Returns path -> name of the class."""
    found = classes_of(sorted(files, key=lambda file: file.split("/")))
    assert len(found.labels) == len(found.files)
    return {f: found.names[label] for f, label in zip(found.files, found.labels, strict=True)}


@pytest.mark.parametrize(
    ("below", "note"),
    [
        ("indoor/1.jpg outdoor/2.jpg", "cat/indoor/1.jpg is of class cat; indoor lies in several"),
        ("images/1.jpg images/2.jpg", "images lies in several (cat, dog)"),
        ("1.jpg more/2.jpg", "cat/more/2.jpg is of class cat"),
        ("1.jpg 2.jpg", None),
    ],
)
def test_the_class_is_the_first_folder(below, note):
    files = [f"{name}/{file}" for name in ("cat", "dog") for file in below.split()]
    assert labels_of(*files) == {file: file.split("/")[0] for file in files}
    notes = classes_of(sorted(files)).notes
    assert any(note in said for said in notes) if note else not notes


def test_names_that_lie_under_one_class_alone_are_no_classes():
    found = classes_of(["animals/cat/1.jpg", "animals/dog/1.jpg", "plants/oak/1.jpg"])
    assert found.names == ["animals", "plants"] and list(found.labels) == [0, 0, 1]
    assert "so animals/cat/1.jpg is of class animals" in found.notes[0]


@pytest.mark.parametrize("way", ["images", "data/images", "train"])
def test_a_folder_that_holds_all_images_is_no_class(way):
    files = [f"{way}/{name}/{i}.jpg" for name in ("a", "b") for i in range(2)]
    found = classes_of(files)
    assert found.names == ["a", "b"] and list(found.labels) == [0, 0, 1, 1]
    assert found.notes == [f"classes are the folders in {way}"]
    assert classes_of([f"{way}/{i}.jpg" for i in range(3)]).names is None


def test_folders_of_splits_are_no_classes():
    found = classes_of(["test/a/1.jpg", "test/b/1.jpg", "train/a/2.jpg", "train/b/2.jpg"])
    assert found.names == ["a", "b"] and list(found.labels) == [0, 1, 0, 1]


def test_a_class_that_another_split_has_may_be_the_only_one(tmp_path):
    for name in ("train/a/1.jpg", "train/b/1.jpg", "test/b/2.jpg", "val/all/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    test = open_folder(str(tmp_path), "test")
    assert test.class_names == ["b"] and list(test.labels) == [0]
    assert open_folder(str(tmp_path), "val").class_names is None


@pytest.mark.parametrize(("stray", "inside"), [(1, 40), (1, 3), (3, 20), (10, 90)])
def test_a_few_images_beside_the_classes_are_left_out_by_name(stray, inside):
    files = [f"{'ab'[i % 2]}/{i}.jpg" for i in range(inside)]
    found = classes_of(sorted([f"s{i}.jpg" for i in range(stray)] + files))
    assert sorted(found.files) == sorted(files) and found.names == ["a", "b"]
    assert len(found.stray) == stray
    assert found.notes[0].startswith(f"left out {stray} image") and "s0.jpg" in found.notes[0]


def test_many_images_beside_folders_say_that_these_are_no_classes():
    files = sorted([f"s{i}.jpg" for i in range(20)] + ["a/1.jpg", "b/2.jpg"])
    found = classes_of(files)
    assert found.names is None and found.labels is None and found.files == files
    assert "20 of 22 images, such as s0.jpg, lie beside the folders a, b" in found.notes[0]


def test_classes_of_one_image_are_told():
    files = ["a/1.jpg", "a/2.jpg", *(f"c{i}/x.jpg" for i in range(9))]
    [note] = classes_of(files).notes
    assert note == "9 classes have one image: c0/x.jpg, c1/x.jpg, c2/x.jpg and 6 more"


def test_a_class_of_which_no_image_is_read_is_named(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "bird/1.tif", "@eaDir/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_folder(str(tmp_path), "train")
    assert source.class_names == ["a", "b"] and source.notes == ["no image is read of bird"]


def test_counts_and_strays_are_the_sources(tmp_path):
    names = [f"{c}/{place}/{i}.jpg" for c in "ab" for place in ("in", "out") for i in range(2)]
    for name in (*names, "a/extra.jpg", "sheet.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    source = open_folder(str(tmp_path), "train")
    np.testing.assert_array_equal(source.class_counts(), [5, 4])
    assert source.left_out_text() == "1 image beside the folders of classes"
    assert source.select([0, 1, 8]).class_counts().tolist() == [2, 1]
