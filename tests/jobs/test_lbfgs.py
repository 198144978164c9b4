"""If this breaks, `--job=lbfgs` chooses by the test images, or reports another metric."""

import shutil

import pytest

from simclr_tf.evaluation.transfer import PENALTIES
from simclr_tf.jobs.lbfgs import _asks_for_mean_per_class


def test_a_part_of_train_validates(evaluation, tmp_path, capsys):
    result = evaluation.result("lbfgs", tmp_path, "lbfgs.validation_share = 0.2")
    numbers = result["numbers"]
    assert result["n"] == {"train": 24, "validation": 6, "test": 12}
    assert [p["penalty"] for p in numbers["validation"]] == sorted(PENALTIES, reverse=True)
    assert numbers["metric"] == "top1" and numbers["top1"] > 0.7
    printed = capsys.readouterr().out
    assert f"{numbers['penalty']:.1e}" in printed
    assert ("widen lbfgs.penalties" in printed) == (numbers["at_end"] is not None)
    told = any("widen lbfgs.penalties" in text for text in result.get("warnings", []))
    assert told == (numbers["at_end"] is not None)


def test_a_split_of_its_own_validates(evaluation, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(evaluation.pictures, pictures)
    shutil.copytree(pictures / "test", pictures / "val")
    result = evaluation.result(
        "lbfgs",
        tmp_path / "out",
        "lbfgs.validation_split = 'val'",
        "lbfgs.penalties = (0.1, 0.01)",
        "lbfgs.metric = 'mean_per_class'",
        pictures=pictures,
    )
    assert result["n"] == {"train": 30, "validation": 12, "test": 12}
    assert list(result["splits"]) == ["train", "test", "validation"]
    assert result["splits"]["validation"] == {
        "source": f"folder:{pictures / 'val'}",
        "split": "val",
        "images": 12,
    }
    assert result["validation"] == "val" and result["numbers"]["metric"] == "mean_per_class"


def test_the_data_sets_that_ask_for_the_mean_per_class():
    for name in ("oxford_iiit_pet", "caltech101", "oxford_flowers102"):
        assert _asks_for_mean_per_class(f"tfds:{name}")
    assert not _asks_for_mean_per_class("tfds:cifar10")
    assert not _asks_for_mean_per_class("folder:/photos/caltech101")


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("lbfgs.validation_share = 1.0", "must be between 0 and 1"),
        ("lbfgs.validation_share = 0.01", "must have images"),
        ("lbfgs.validation_split = 'test'", "neither the one to train on nor the one to test on"),
        ("lbfgs.validation_split = 'val'", "images that were not trained on"),
        ("lbfgs.metric = 'mAP'", "'auto' or 'top1' or 'mean_per_class'"),
        ("lbfgs.penalties = (0.0, 1.0)", "must be positive"),
    ],
)
def test_wrong_requests(refused, binding, words):
    assert words in refused("lbfgs", binding)
