"""If this breaks, `--job=probe_invariance` compares h and z on different images or labels."""

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Pictures without classes, in splits large enough to train a small network."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for split, count in (("train", 160), ("test", 60)):
        (folder / split).mkdir()
        for i in range(count):
            # Bright above and dark below, so that a turn can be seen.
            pixels = rng.integers(0, 100, (16, 16, 3)) + np.linspace(150, 0, 16)[:, None, None]
            encoded = tf.io.encode_png(pixels.astype(np.uint8)).numpy()
            (folder / split / f"{i:03d}.png").write_bytes(encoded)
    return folder


@pytest.mark.slow
def test_a_table_of_four_tasks(evaluation, many, tmp_path, capsys):
    result = evaluation.result(
        "probe_invariance", tmp_path, "probe_invariance.max_train = 150", pictures=many
    )
    assert result["n"] == {"train": 150, "test": 60}
    assert [part["images"] for part in result["splits"].values()] == [150, 60]
    assert result["layer"] == ["representation", "projection"]
    rows = result["numbers"]
    assert [row["chance"] for row in rows.values()] == [0.5, 0.25, 0.5, 0.5]
    assert rows["original or Sobel filtered"]["representation"] > 0.8
    # Of tasks, networks, layers and splits.
    assert len(list((tmp_path / "features").iterdir())) == 4 * 2 * 2 * 2
    assert result["dimensions"] == {"representation": 64, "projection": 8}
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.endswith("chance  untrained h  untrained z       h [64]        z [8]")
    for line, (task, row) in zip(lines, rows.items(), strict=False):
        assert line.split() == [*task.split(), *(f"{share:.1%}" for share in row.values())]


def test_weights_without_a_head(refused):
    words = refused("probe_invariance", weights="encoder_only")
    assert "must have the part 'projection_head'" in words


def test_too_few_images(refused):
    assert "At least 100 images" in refused("probe_invariance")
    assert "must be at least 1" in refused("probe_invariance", "probe_invariance.max_test = 0")
