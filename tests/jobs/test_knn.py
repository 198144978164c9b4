"""If this breaks, `--job=knn` reports other neighbours than those of the features."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.evaluation.features import FrozenEncoder


def kept(model_dir, split):
    (folder,) = (model_dir / "features").glob(f"{split}-representation-*")
    return np.load(folder / "values.npy"), np.load(folder / "labels.npy")


def test_numbers_are_those_of_scikit_learn(evaluation, tmp_path, capsys):
    result = evaluation.result("knn", tmp_path, "knn.k = 7", "knn.table_ks = (1, 20, 200)")
    (train, labels), (test, test_labels) = kept(tmp_path, "train"), kept(tmp_path, "test")
    assert result["n"] == {"train": 30, "test": 12} == {"train": len(train), "test": len(test)}
    assert {row["k"] for row in result["table"]} == {1, 20}
    for row in [result["numbers"], *result["table"]]:
        oracle = KNeighborsClassifier(
            row["k"],
            metric="cosine",
            algorithm="brute",
            weights=lambda distances, t=row["temperature"]: np.exp((1 - distances) / t),
        ).fit(train, labels)
        assert row["top1"] == pytest.approx(oracle.score(test, test_labels))
    assert result["numbers"]["top1"] > 0.7  # colours survive a random network
    assert result["checkpoint"]["step"] == 3 and result["layer"] == "representation"
    assert "T=0.07" in capsys.readouterr().out


def test_more_neighbours_than_images_are_refused_before_features(refused, monkeypatch):
    monkeypatch.setattr(FrozenEncoder, "features", lambda *_, **__: pytest.fail("were computed"))
    words = refused("knn")
    assert "Received: knn.k=200, 30 images" in words
    assert "--gin_bindings='knn.k = 30'" in words
