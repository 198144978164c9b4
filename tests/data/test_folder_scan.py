"""If this breaks, images of a folder are missing, or read twice, without a word."""

import os
import time

import pytest
from absl import logging as absl_logging

from simclr_tf.data import folder_scan
from simclr_tf.data.folder_scan import list_images
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.source import counted
from simclr_tf.errors import RequestError


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def link(root, name, to):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(to)


def listing(root, split="", **settings):
    return list_images(str(root / split), str(root), **settings)


def test_the_order_is_that_of_the_parts_of_paths(tmp_path):
    """Images keep their numbers, and a run that was started before goes on."""
    names = [
        "a/1.jpg",
        "a b/1.jpg",
        "a-b/1.jpg",
        "a.jpg",
        "a/b/1.jpg",
        "Z/10.jpg",
        "Z/9.jpg",
        "é.jpg",
    ]
    tree(tmp_path, *names)
    expected = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jpg"))
    assert listing(tmp_path).files == [str(path) for path in expected]


def test_files_passed_over_are_counted_by_kind(tmp_path):
    endings = ["jpg", "JFIF", "jpe", "tif", "TIF", "heic", "txt"]
    tree(tmp_path, *(f"{i}.{ending}" for i, ending in enumerate(endings)), "no_ending")
    found = listing(tmp_path)
    assert found.files == ["0.jpg", "1.JFIF", "2.jpe"]
    assert found.left_out == {".tif": 2, ".heic": 1, ".txt": 1, "other files": 1}
    assert counted(found.left_out) == "2 .tif, 1 .heic, 1 .txt, 1 other file"


def test_what_systems_and_programs_leave_is_skipped_and_counted(tmp_path):
    tree(
        tmp_path,
        "a/1.jpg",
        "a/.ipynb_checkpoints/1-checkpoint.jpg",
        "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "b/@eaDir/2.jpg/SYNOPHOTO_THUMB_M.jpg",
        "a/.DS_Store",
        "a/._1.jpg",
        "a/Thumbs.db",
        "__MACOSX/a/._1.jpg",
        ".thumbnails/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "System Volume Information/1.jpg",
    )
    found = listing(tmp_path)
    assert found.files == ["a/1.jpg"]
    assert found.left_out == {
        "hidden folders": 2,
        "folders named @eaDir": 2,
        "folders named __MACOSX": 1,
        "folders named $RECYCLE.BIN": 1,
        "folders named System Volume Information": 1,
        "hidden files": 2,
        "system files": 1,
    }
    assert "1 folder named __MACOSX" in counted(found.left_out)


@pytest.fixture
def linked(tmp_path):
    """Links within the data, out of it, to nothing, and in circles."""
    data = tmp_path / "data"
    tree(data, "train/bird/1.jpg", "pool/cat/2.jpg", "pool/cat/deep/3.jpg", "pool/dog/4.jpg")
    tree(tmp_path, "outside/horse/5.jpg", "outside/6.jpg")
    link(data, "train/cat", "../pool/cat")
    link(data, "train/horse", "../../outside/horse")
    link(data, "train/bird/7.jpg", "../../pool/dog/4.jpg")
    link(data, "train/bird/8.jpg", "../../../outside/6.jpg")
    link(data, "train/bird/9.jpg", "nothing.jpg")
    link(data, "train/bird/up", "..")
    link(data, "train/bird/top", "../..")
    link(data, "train/bird/round", "round")
    return data


def test_links_to_folders_are_followed_within_the_data_and_counted(linked):
    found = listing(linked, "train")
    assert found.files == ["bird/1.jpg", "bird/7.jpg", "cat/2.jpg", "cat/deep/3.jpg"]
    assert found.followed == 2
    assert {k.partition(" (")[0]: n for k, n in found.left_out.items()} == {
        "links that lead outside": 2,
        "links that lead nowhere": 2,
        "links in a circle": 2,
    }


def test_links_outside_are_followed_if_asked(linked):
    found = listing(linked, "train", follow_links=True)
    assert {"bird/8.jpg", "horse/5.jpg"} <= set(found.files) and len(found.files) == 6
    assert found.followed == 4 and not found.outside


def test_no_folder_is_read_twice(tmp_path):
    """Else links between n folders would give a number of paths that grows as n!"""
    count = 12
    tree(tmp_path, *(f"{i:02d}/{i}.jpg" for i in range(count)))
    for i in range(count):
        for j in range(count):
            link(tmp_path, f"{i:02d}/to{j}", f"../{j:02d}")
    link(tmp_path, "00/all", "..")
    found = listing(tmp_path)
    assert found.files == [f"{i:02d}/{i}.jpg" for i in range(count)]
    assert sum(found.left_out.values()) == count**2 + 1


def test_a_subset_made_of_links_says_what_to_give(tmp_path):
    photos, subset = tree(tmp_path / "photos", *(f"{i}.jpg" for i in range(4))), tmp_path / "some"
    for i in range(3):
        link(subset, f"{i}.jpg", photos / f"{i}.jpg")
    with pytest.raises(RequestError) as error:
        open_folder(str(subset), "train")
    for words in ("3 links that lead outside", "data.follow_links = True", f"folder:{photos},"):
        assert words in str(error.value)
    followed = open_folder(str(subset), "train", follow_links=True)
    assert followed.num_examples == 3 and "followed 3 links" in followed.notes


def test_a_folder_that_only_links_out_says_how_many_folders(tmp_path):
    tree(tmp_path, "elsewhere/cat/1.jpg", "elsewhere/dog/1.jpg")
    for name in ("cat", "dog"):
        link(tmp_path, f"data/{name}", f"../elsewhere/{name}")
    with pytest.raises(RequestError, match=r"2 links to folders lead outside.*elsewhere, or bind"):
        open_folder(str(tmp_path / "data"), "train")


def test_a_folder_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("/b/"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(folder_scan.os, "scandir", refuse)
    found = listing(tmp_path)
    assert found.files == ["a/1.jpg"] and found.left_out == {"folders that cannot be read": 1}


def test_a_long_listing_shows_progress(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(absl_logging.get_absl_logger(), "propagate", True)
    absl_logging.set_verbosity(absl_logging.INFO)
    tree(tmp_path, *(f"{i}.jpg" for i in range(20)))
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO"):
        assert len(listing(tmp_path).files) == 20
    lines = [r.getMessage() for r in caplog.records if "images so far" in r.getMessage()]
    assert 2 <= len(lines) <= 10
