"""If this breaks, a run trains on other images than the split that was asked for."""

import pytest

from simclr_tf.data.dataset import data
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.source_kinds import open_source
from simclr_tf.errors import RequestError


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


@pytest.mark.parametrize(
    ("folders", "split", "words"),
    [
        ("train test", "trian", ["'trian'", "test, train", "Did you mean 'train'?"]),
        ("train test", "val", ["'val'", "test, train"]),
        ("Train Test", "train", ["Test, Train", "Did you mean 'Train'?"]),
        ("Train Test", "test", ["Test, Train", "Did you mean 'Test'?"]),
        ("TRAIN VALID", "train", ["TRAIN, VALID", "Did you mean 'TRAIN'?"]),
        ("train2017 val2017", "train", ["train2017, val2017"]),
        ("training testing", "train", ["testing, training"]),
        ("validation cat dog", "train", ["cat, dog, validation", "data.train_split = '.'"]),
        ("cat dog", "trian", ["cat, dog"]),
        ("cat dog", "test", ["cat, dog", "images that were not trained on"]),
    ],
)
def test_a_split_that_is_not_there_is_an_error_with_what_is_there(folders, split, words, tmp_path):
    path = tree(tmp_path, *(f"{folder}/a/1.jpg" for folder in folders.split()))
    with pytest.raises(RequestError) as error:
        open_folder(path, split)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("above", ["bottle", "photos/2023"])
def test_splits_that_lie_deeper_are_an_error(above, tmp_path):
    path = tree(tmp_path, f"{above}/train/good/1.jpg", f"{above}/test/bad/2.jpg")
    with pytest.raises(RequestError) as error:
        open_folder(path, "train")
    assert f"in whose folder {above} lie train, test" in str(error.value)
    assert f"data.train_split = '{above}/train'" in str(error.value)
    assert open_folder(path, f"{above}/train").num_examples == 1
    assert open_folder(path, ".").num_examples == 2


@pytest.mark.parametrize(
    "names",
    [["1.jpg", "2.jpg"], ["cat/1.jpg", "dog/2.jpg"], ["Train trip 2021/1.jpg", "testimony/2.jpg"]],
)
def test_a_folder_without_splits_is_the_training_split(names, tmp_path, monkeypatch):
    path = tree(tmp_path, *names)
    assert open_folder(path, "train").num_examples == 2
    monkeypatch.chdir(path)
    assert open_folder(".", "train").num_examples == 2


def test_a_broken_link_is_no_reason_to_read_everything(tmp_path):
    path = tree(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "train").symlink_to("gone")
    with pytest.raises(RequestError, match=r"'train'.*a, b"):
        open_folder(path, "train")


def test_folders_beside_a_split_are_named(tmp_path):
    """A class of trains is one, and its neighbours would be gone in silence."""
    path = tree(tmp_path, "train/1.jpg", "bus/2.jpg", "car/3.jpg", "test/4.jpg")
    assert open_folder(path, "train").notes == ["only train is read, not bus, car beside it"]


def test_evaluation_is_held_to_the_same(tmp_path):
    path = tree(tmp_path, "Train/a/1.jpg", "Train/b/2.jpg", "Test/a/3.jpg", "Test/b/4.jpg")
    given = data(source=f"folder:{path}", train_split="Train", data_dir=None)
    with pytest.raises(RequestError, match="Did you mean 'Test'"):
        given.evaluation()
    given = data(source=f"folder:{path}", train_split="Train", eval_split="Test", data_dir=None)
    assert given.train().num_examples == given.evaluation().num_examples == 2


def test_links_are_followed_as_the_recipe_says(tmp_path):
    tree(tmp_path, "data/1.jpg", "outside/2.jpg")
    (tmp_path / "data" / "2.jpg").symlink_to("../outside/2.jpg")
    for follow, count in ((False, 1), (True, 2)):
        recipe = data(source="folder:", data_dir=str(tmp_path / "data"), follow_links=follow)
        assert recipe.train().num_examples == count
    with pytest.raises(RequestError, match=r"data\.follow_links is for folders"):
        open_source("shapes", "train", None, follow_links=True)
