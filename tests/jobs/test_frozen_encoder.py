"""If this breaks, evaluating what cannot be evaluated ends in a traceback or a wrong number."""

import functools
import json
import shutil

import gin
import numpy as np
import pytest

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.distribute import strategy
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.frozen_encoder import check_classes, frozen_encoder
from simclr_tf.export.weights import UNTRAINED, pretrained
from simclr_tf.models.heads import projection_head


def of(labels):
    return Features(
        np.zeros((len(labels), 2), np.float32), np.array(labels), np.arange(len(labels))
    )


def test_classes_that_fit():
    check_classes(of([0, 1, 2, 2]), of([2, 0]), "abc")


@pytest.mark.parametrize(
    ("train", "other", "words"),
    [
        ([0, 1, 1], [0, 2, 4], r"classes that do not, c, number 4, beside 2 that do"),
        ([0], list(range(100)), r", number 10 and 89 more, beside 1 that do"),
        ([0, 1, -1], [0, 1], r"1 of 3 without one"),
        ([0, 1], [-1, -1], r"2 of 2 without one"),
    ],
)
def test_classes_that_do_not_fit(train, other, words):
    with pytest.raises(RequestError, match=words):
        check_classes(of(train), of(other), "abc")


def test_the_untrained_twin_has_the_initial_weights(evaluation):
    """Those that the same seed gives the same networks, whatever weights are evaluated."""
    gin.parse_config("resnet.depth = 6\nresnet.width_multiplier = 0.125")
    build = functools.partial(
        frozen_encoder,
        context=Context(model_dir="", data_dir=str(evaluation.pictures), tpu="none"),
        data=functools.partial(Dataset, "folder:", 16, "train", "test", 64),
        projection_head=functools.partial(projection_head, output_dim=8),
        layer="projection",
        keep_features=False,
    )
    weights = str(evaluation.runs / "whole")
    frozen = build(pretrained=functools.partial(pretrained, weights))
    initial = build(pretrained=functools.partial(pretrained, UNTRAINED))
    assert frozen.untrained().encoder.fingerprint() == initial.encoder.fingerprint()
    assert frozen.encoder.fingerprint() != initial.encoder.fingerprint()
    assert frozen.untrained().strategy is frozen.strategy


def test_pictures_without_classes(evaluation, refused, tmp_path):
    flat = tmp_path / "flat"
    for split in ("train", "test"):
        shutil.copytree(evaluation.pictures / split / "red", flat / split)
    assert "needs labels" in refused("knn", pictures=flat)


def test_a_test_split_with_other_classes(evaluation, refused, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(evaluation.pictures, pictures)
    (pictures / "test" / "red").rename(pictures / "test" / "yellow")
    assert "Received: folder:" in (words := refused("knn", pictures=pictures))
    assert f"{pictures / 'test'} with yellow; " in words and "has blue, green, red" in words


@pytest.fixture
def lacking(evaluation, tmp_path):
    """Pictures without an image to test of the class in the middle."""
    pictures = tmp_path / "lacking"
    shutil.copytree(evaluation.pictures, pictures)
    shutil.rmtree(pictures / "test" / "green")
    return pictures


def test_a_test_split_that_lacks_a_class_is_evaluated_on_the_others(
    evaluation, lacking, tmp_path, capsys
):
    """Each picture finds those of its own colour, under the number of its class in training."""
    result = evaluation.result("knn", tmp_path / "r", "knn.k = 7", pictures=lacking)
    (folder,) = (tmp_path / "r" / "features").glob("test-*")
    assert np.load(folder / "labels.npy").tolist() == [0] * 4 + [2] * 4
    assert result["numbers"]["top1"] > 0.7
    assert result["absent_classes"] == ["green"] and "green" in result["warnings"][0]
    assert result["splits"] == {
        "train": {"source": f"folder:{lacking / 'train'}", "split": "train", "images": 30},
        "test": {"source": f"folder:{lacking / 'test'}", "split": "test", "images": 8},
    }
    out = capsys.readouterr().out
    assert f"\ntrain: folder:{lacking / 'train'} (split 'train', 30 images)\n" in out
    assert f"\ntest: folder:{lacking / 'test'} (split 'test', 8 images)\n" in out
    assert "warning: The images to test lack one class of the training split: green." in out


@pytest.mark.parametrize(
    ("job", "bindings"),
    [
        ("linear_eval", ()),
        ("lbfgs", ("lbfgs.penalties = (0.1,)",)),
    ],
)
def test_every_evaluation_tells_its_splits_and_the_class_it_lacks(
    evaluation, lacking, tmp_path, job, bindings
):
    result = evaluation.result(job, tmp_path / "r", *bindings, pictures=lacking)
    assert [part["images"] for part in result["splits"].values()] == [30, 8]
    assert result["absent_classes"] == ["green"]


def test_the_projection_of_weights_without_a_head(refused):
    words = refused("knn", "frozen_encoder.layer = 'projection'", weights="encoder_only")
    assert "must have the part 'projection_head'" in words


def test_a_layer_that_is_not_there(refused):
    assert "must be one of representation" in refused(
        "knn", "frozen_encoder.layer = 'projection_7'", "knn.k = 7"
    )


def test_a_checkpoint_that_was_cut_short(evaluation, refused, tmp_path):
    weights = tmp_path / "partial"
    shutil.copytree(evaluation.runs / "whole", weights)
    (weights / "checkpoints" / "step_00000003" / "manifest.json").unlink()
    assert "must be a complete checkpoint" in refused("knn", weights=weights)


def test_evaluations_run_on_the_tpu_that_is_asked_for(evaluation, tmp_path, monkeypatch):
    """Two replicas on the CPU stand for it."""
    alone = evaluation.result("knn", tmp_path / "alone", "knn.k = 7")
    asked = []

    def replicas(name):
        asked.append(name)
        return strategy.simulated_replicas(2)

    monkeypatch.setattr(strategy, "tpu_strategy", replicas)
    monkeypatch.setenv("TPU_NAME", "local")
    found = evaluation.result("knn", tmp_path / "tpu", "knn.k = 7")
    assert asked == ["local"]
    assert found["checkpoint"] == alone["checkpoint"] and found["n"] == alone["n"]
    assert found["numbers"] == pytest.approx(alone["numbers"])
    a, b = (
        np.load(next((tmp_path / n / "features").glob("test-*")) / "values.npy")
        for n in ("alone", "tpu")
    )
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("job", ["knn", "embed", "quickstart"])
def test_several_workers_are_refused_and_not_waited_for(refused, monkeypatch, job):
    cluster = {"worker": ["localhost:1", "localhost:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert "Received: TF_CONFIG with 2 workers" in refused(job)
