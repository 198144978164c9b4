"""If this breaks, runs without labels are compared by numbers of other images or other weights."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.export.weights import pretrained
from simclr_tf.models.resnet import resnet
from tests.support.small_resnet import SMALL_DEPTH

PLAIN = ("augmentation.random_crop = False", "augmentation.policy = ()")


@pytest.fixture(scope="module")
def unlabelled(evaluation, tmp_path_factory):
    """A folder of pictures without class folders."""
    flat = tmp_path_factory.mktemp("flat")
    for i, path in enumerate(sorted(evaluation.pictures.glob("train/*/*.png"))):
        shutil.copy(path, flat / f"{i:02}.png")
    return flat


@pytest.fixture(scope="module")
def h(evaluation, unlabelled):
    """The representations of the unlabelled pictures, by the networks themselves."""
    encoder = resnet(SMALL_DEPTH, 0.125, image_size=16)
    pretrained(str(evaluation.runs / "whole"), model_dir="").restore({"encoder": encoder})
    files = sorted(unlabelled.glob("*.png"))
    images = [tf.io.decode_png(file.read_bytes()).numpy() / np.float32(255) for file in files]
    return encoder(np.stack(images), training=False)["final_avg_pool"].numpy().astype(np.float64)


def log_mean_gaussian(h):
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(h), 1)
    return np.log(np.mean(np.exp(-2 * ((unit[rows] - unit[columns]) ** 2).sum(1))))


@pytest.fixture(scope="module")
def measured(evaluation, unlabelled, tmp_path_factory):
    """The job's result where both views are the image itself."""
    folder = tmp_path_factory.mktemp("measured")
    return evaluation.result("label_free", folder, *PLAIN, pictures=unlabelled)


def test_no_labels_are_needed(measured, h):
    shares = np.linalg.svd(h, compute_uv=False)
    shares = shares / shares.sum() + 1e-7
    numbers = measured["numbers"]
    assert numbers["rankme"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
    assert numbers["alignment"] == pytest.approx(0, abs=1e-9)
    assert numbers["uniformity"] == pytest.approx(log_mean_gaussian(h), rel=1e-3)
    assert measured["n"] == {"images": 30, "in_two_views": 30} and measured["dimensions"] == 64
    assert measured["fitted_ranks"] == [4, 29] and numbers["alpha_req"] > 0
    assert measured["checkpoint"]["step"] == 3 and measured["splits"]["train"]["images"] == 30
    assert "fewer images (30) than dimensions (64)" in measured["warnings"][0]


@pytest.mark.slow
def test_views_are_the_recipe_s_and_bad_images_are_left_out(
    evaluation, unlabelled, tmp_path, capsys
):
    folder = tmp_path / "pictures"
    shutil.copytree(unlabelled, folder)
    for i in range(40):  # more than one batch of views
        shutil.copy(folder / f"{i % 30:02}.png", folder / f"copy{i}.png")
    whole = folder / "00.png"
    whole.write_bytes(whole.read_bytes()[:60])
    flips = "augmentation.policy = (('flip', 0.5),)"
    result = evaluation.result("label_free", tmp_path, flips, pictures=folder)
    assert result["n"] == {"images": 69, "in_two_views": 69}
    assert 1e-4 < result["numbers"]["alignment"] < 1
    printed = capsys.readouterr().out
    assert f"RankMe {result['numbers']['rankme']:.2f} of 64 dimensions" in printed


@pytest.mark.slow
def test_a_part_of_the_evaluation_split(evaluation, tmp_path):
    bindings = ["label_free.split = 'evaluation'", "label_free.view_images = 5", *PLAIN]
    result = evaluation.result("label_free", tmp_path, *bindings)
    assert result["n"] == {"images": 12, "in_two_views": 5}
    source = f"folder:{evaluation.pictures / 'test'}"
    assert result["splits"] == {"evaluation": {"source": source, "split": "test", "images": 12}}


@pytest.mark.slow
def test_a_watch_without_labels(evaluation, unlabelled, measured, tmp_path, capsys):
    bindings = ["watch.evaluations = ('label_free',)", *PLAIN]
    assert evaluation.job("watch", tmp_path, *bindings, pictures=unlabelled) == 0
    [line] = map(json.loads, (tmp_path / "results" / "watch.jsonl").read_text().splitlines())
    assert (line["step"], line["job"]) == (3, "label_free")
    assert line["numbers"] == pytest.approx(measured["numbers"], rel=1e-5, abs=1e-9)
    rankme = measured["numbers"]["rankme"]
    assert f"label_free rankme {rankme:.4g}, alpha_req" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("label_free.view_images = 1", "label_free.view_images must be at least 2"),
        ("label_free.split = 'test'", "'train' or 'evaluation'"),
    ],
)
def test_wrong_requests(refused, binding, words):
    assert words in refused("label_free", binding)


def test_one_image_is_refused(unlabelled, refused, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(unlabelled / "00.png", folder)
    assert "at least 2 must decode. Received: 1" in refused("label_free", pictures=folder)
