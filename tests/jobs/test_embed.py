"""If this breaks, `--job=embed` writes vectors that are not those of the files beside them."""

import csv
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.export.weights import pretrained
from simclr_tf.models.resnet import resnet
from tests.support.small_resnet import SMALL_DEPTH


@pytest.mark.slow
def test_both_splits_with_everything(evaluation, tmp_path):
    pytest.importorskip("pyarrow")
    result = evaluation.result(
        "embed",
        tmp_path,
        "embed.splits = ('train', 'evaluation')",
        "embed.parquet = True",
        "embed.queries = 2",
        "embed.neighbours = 50",  # more than there are
        "embed.max_points = 20",
    )
    encoder = resnet(SMALL_DEPTH, 0.125, image_size=16)
    pretrained(str(evaluation.runs / "whole"), model_dir="").restore({"encoder": encoder})
    for split, folder, count in (("train", "train", 30), ("evaluation", "test", 12)):
        written = tmp_path / "embeddings" / split
        assert result["written"][split]["images"] == count
        source = f"folder:{evaluation.pictures / folder}"
        assert result["splits"][split] == {"source": source, "split": folder, "images": count}
        vectors = np.load(written / "vectors.npy")
        assert vectors.shape == (count, 64)
        with open(written / "images.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        line, vector = lines[count - 2], vectors[count - 2]
        assert line["name"].startswith(str(evaluation.pictures / folder / line["class"]))
        image = tf.io.decode_png(tf.io.read_file(line["name"])).numpy()[None] / np.float32(255)
        expected = encoder(image, training=False)["final_avg_pool"][0]
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
        for name in ("vectors.parquet", "neighbours.png", "map.png", "projector/sprite.png"):
            assert (written / name).stat().st_size > 500, name
        points = (written / "projector" / "tensors.tsv").read_text().splitlines()
        assert len(points) == min(20, count)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_folder_without_classes_or_splits(evaluation, tmp_path, count):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(count):
        shutil.copy(evaluation.pictures / "train" / "red" / f"{i}.png", flat)
    bindings = ["embed.map = 'none'"] if count < 5 else []
    evaluation.result("embed", tmp_path / "out", *bindings, pictures=flat)
    written = tmp_path / "out" / "embeddings" / "train"
    assert np.load(written / "vectors.npy").shape == (count, 64)
    assert (written / "map.png").exists() == (count >= 5)
    assert (written / "neighbours.png").exists() == (count > 1)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("embed.splits = ('train', 'test')", "'train', 'evaluation' or both"),
        ("embed.queries = 0", "embed.queries must be at least 1"),
        ("embed.map = 'pca'", "'tsne' or 'umap' or 'none'"),
    ],
)
def test_wrong_requests(refused, binding, words):
    assert words in refused("embed", binding)


def test_a_folder_without_images_to_evaluate_on(evaluation, refused):
    words = refused(
        "embed", "embed.splits = ('evaluation',)", pictures=evaluation.pictures / "train"
    )
    assert "images that were not trained on" in words
